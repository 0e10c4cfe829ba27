import type { Target } from './target.ts'
export const p7: Target = { id: 'P7', title: '', parts: [] }
