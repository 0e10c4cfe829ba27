import { Agent, request } from 'node:http'

export type Answer = { readonly status: number; readonly text: string; readonly at: number }

/** Bare requests on kept-alive connections: the generator must cost less than what it measures. */
export function createHttp(connections: number) {
  const agent = new Agent({ keepAlive: true, maxSockets: connections })
  return {
    send(method: string, url: string, body = ''): Promise<Answer> {
      return new Promise((resolve, reject) => {
        const headers = {
          'Content-Length': Buffer.byteLength(body),
          ...(body === '' ? {} : { 'Content-Type': 'application/json' }),
        }
        const sent = request(url, { method, agent, headers }, (answer) => {
          let text = ''
          answer.setEncoding('utf8')
          answer.on('data', (part: string) => (text += part))
          answer.on('end', () => resolve({ status: answer.statusCode ?? 0, text, at: performance.now() }))
        })
        sent.on('error', reject)
        sent.end(body)
      })
    },
    async subscribe(gateway: string, topic: string): Promise<string> {
      const body = JSON.stringify({ topic, ack: 'explicit' })
      const { text } = await this.send('POST', `${gateway}/subscriptions`, body)
      return (JSON.parse(text) as { id: string }).id
    },
    close: () => agent.destroy(),
  }
}
