import { defineConfig } from 'vitest/config'
import type { ViteUserConfig } from 'vitest/config'
import suite from '../../../vitest.config.ts'

// The suite as it is, but for its tests.
const { test } = suite as ViteUserConfig
export default defineConfig({ test: { ...test, include: ['test/support/hanging/hang.ts'] } })
