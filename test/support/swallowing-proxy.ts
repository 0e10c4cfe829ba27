import { once } from 'node:events'
import { createServer, request } from 'node:http'
import type { AddressInfo } from 'node:net'
import { onTestFinished } from 'vitest'

/** An HTTP proxy that hides from the gateway that a client gave up, and takes the answer in the client's place. */
export async function swallowingProxy(gatewayUrl: string): Promise<string> {
  const server = createServer((req, res) => {
    const { method, url = '', headers } = req
    const upstream = request(new URL(url, gatewayUrl), { method, headers }, (answer) => {
      res.writeHead(answer.statusCode ?? 502, answer.headers)
      answer.on('data', (chunk) => void res.write(chunk)).on('end', () => res.end())
    })
    upstream.on('error', () => res.destroy())
    res.on('error', () => undefined)
    req.pipe(upstream)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  onTestFinished(() => {
    server.closeAllConnections()
    server.close()
  })
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}
