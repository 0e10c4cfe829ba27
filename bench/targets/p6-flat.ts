import type { Target } from './target.ts'
export const p6: Target = { id: 'P6', title: '', parts: [] }
