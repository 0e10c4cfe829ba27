import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    globalSetup: ['test/support/global-setup.ts'],
    pool: 'forks',
    // Two files at once: the suite shares two cores with its own Postgres and gateway processes.
    maxWorkers: 2,
    testTimeout: 30_000,
    hookTimeout: 60_000,
    unhandledRejections: 'strict',
  },
} as Parameters<typeof defineConfig>[0])
