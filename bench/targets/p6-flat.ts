import { burstAfterIdle } from './p6-burst.ts'
import { claimRows } from './p6-claims.ts'
import { held } from './p6-held.ts'
import { late } from './p6-late.ts'
import type { Target } from './target.ts'

export const p6: Target = { id: 'P6', title: 'flat', parts: [...claimRows, burstAfterIdle, held, late] }
