import { parse } from 'node:querystring'
import type { ParsedUrlQuery } from 'node:querystring'
import type { Params, Route } from './route.ts'

export type Match = { readonly route: Route; readonly params: Params; readonly query: ParsedUrlQuery }

// Only what needs no decoding and no second thought: whatever else a client may write is express's to match, and
// served the same. So this can be small without being wrong.
const target = /^(\/[a-z]+\/)([\w-]+)(\/[a-z]+)?(?:\?([\w=&.-]*))?$/

/**
 * Finds the hot route of a request line, in 1 to 5 µs where express took 100 (docs/adr/0001-hot-route.md). Hot routes
 * have one parameter, `{id}`, as their second segment. Undefined: it may be another route, or none.
 */
export function createHotRoutes(
  routes: readonly Route[],
): (method: string, url: string) => Match | undefined {
  const hot = new Map(routes.filter((route) => route.hot).map((route) => [keyOf(route), route]))
  return (method, url) => {
    const parts = target.exec(url)
    if (parts === null) return undefined
    const [, head = '', id = '', tail = '', query] = parts
    const route = hot.get(`${method} ${head}{id}${tail}`)
    return route && { route, params: { id }, query: query === undefined ? {} : parse(query) }
  }
}

function keyOf({ method, path }: Route): string {
  if (!/^\/[a-z]+\/\{id\}(\/[a-z]+)?$/.test(path)) throw new Error(`${path} cannot be a hot route`)
  return `${method.toUpperCase()} ${path}`
}
