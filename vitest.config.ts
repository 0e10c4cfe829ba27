import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    globalSetup: ['test/support/global-setup.ts'],
    setupFiles: ['test/support/setup.ts'],
    pool: 'forks',
    // Two files at once: the suite shares two cores with its own Postgres and gateway processes.
    maxWorkers: 2,
    // Tests wait for signals. The limits are for a machine that is busy with other things: nothing waits for them to pass.
    testTimeout: 240_000,
    hookTimeout: 240_000,
    unhandledRejections: 'strict',
  },
} as Parameters<typeof defineConfig>[0])
