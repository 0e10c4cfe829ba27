import type { Target } from './target.ts'
export const p8: Target = { id: 'P8', title: '', parts: [] }
