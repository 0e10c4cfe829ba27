import { spawn } from 'node:child_process'
import { accessSync, constants, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import type { AddressInfo } from 'node:net'
import { once } from 'node:events'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { onTestFinished } from 'vitest'
import { until } from './http.ts'
import { blocksOf, sectionOf } from './page.ts'

/** The proxies of docs/proxies.md, run with the configuration that the page shows. */
export const proxyNames = ['HAProxy', 'nginx', 'Envoy', 'Caddy', 'Traefik'] as const
export type ProxyName = (typeof proxyNames)[number]

type Files = Readonly<Record<string, string>>
type Kind = {
  readonly command: string
  /** What is written into the proxy's folder: the page's snippets in their order, and what they need around them. */
  readonly files: (snippets: readonly string[], folder: string) => Files
  readonly args: (folder: string) => readonly string[]
}

/** Around a snippet there is only what lets the proxy run in a folder of its own, without rights. */
const kinds: Readonly<Record<ProxyName, Kind>> = {
  HAProxy: {
    command: 'haproxy',
    files: ([snippet = '']) => ({ 'haproxy.cfg': snippet }),
    args: (folder) => ['-db', '-f', join(folder, 'haproxy.cfg')],
  },
  nginx: {
    command: 'nginx',
    files: ([snippet = ''], folder) => {
      const folders = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']
        .map((name) => `${name}_temp_path ${folder}/${name};`)
        .join(' ')
      return {
        'nginx.conf': `daemon off; master_process off; pid ${folder}/pid; error_log stderr;
          events {} http { access_log off; ${folders} include ${folder}/pullgate.conf; }`,
        'pullgate.conf': snippet,
      }
    },
    args: (folder) => ['-e', 'stderr', '-p', folder, '-c', join(folder, 'nginx.conf')],
  },
  Envoy: {
    command: 'envoy',
    files: ([snippet = '']) => ({ 'envoy.yaml': snippet }),
    args: (folder) => [
      '-c',
      join(folder, 'envoy.yaml'),
      '--concurrency',
      '1',
      '--use-dynamic-base-id',
      '-l',
      'warn',
    ],
  },
  Caddy: {
    command: 'caddy',
    files: ([snippet = '']) => ({ Caddyfile: `{\n  admin off\n}\n${snippet}` }),
    args: (folder) => ['run', '--adapter', 'caddyfile', '--config', join(folder, 'Caddyfile')],
  },
  Traefik: {
    command: 'traefik',
    files: ([settings = '', routes = ''], folder) => ({
      'traefik.yaml': settings.replace('/etc/traefik', folder),
      'pullgate.yaml': routes,
    }),
    args: (folder) => [`--configFile=${join(folder, 'traefik.yaml')}`],
  },
}

/** The snippets below the proxy's heading, in order. */
export const snippetsOf = (name: ProxyName): readonly string[] => blocksOf(sectionOf('docs/proxies.md', name))

/** The program's path, or undefined where it is not on the PATH. */
export function programOf(name: ProxyName): string | undefined {
  // Debian keeps servers out of a user's PATH.
  const folders = [...(process.env.PATH ?? '').split(delimiter), '/usr/sbin', '/usr/local/sbin']
  return folders.map((folder) => join(folder, kinds[name].command)).find(isProgram)
}

function isProgram(path: string): boolean {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
}

export const commandOf = (name: ProxyName): string => kinds[name].command

/** Starts the proxy in front of a gateway, until the end of the test. Resolves to its URL once it answers. */
export async function startProxy(
  name: ProxyName,
  gatewayUrl: string,
  edit: (snippet: string) => string = (snippet) => snippet,
): Promise<string> {
  const program = programOf(name)
  if (program === undefined) throw new Error(`${kinds[name].command} is not on this machine`)
  const port = await freePort()
  const folder = mkdtempSync(join(tmpdir(), 'pullgate-proxy-'))
  const snippets = snippetsOf(name).map((snippet) =>
    edit(snippet)
      .replace(/\b8080\b/, new URL(gatewayUrl).port)
      .replace(/\b80\b/, String(port)),
  )
  const files = Object.entries(kinds[name].files(snippets, folder))
  for (const [file, text] of files) writeFileSync(join(folder, file), text)
  const child = spawn(program, kinds[name].args(folder), {
    env: { PATH: process.env.PATH, HOME: folder },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let output = ''
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (text: Buffer) => (output += text.toString()))
  const exited = once(child, 'close').then(([code]) => void (output += `\nexited: ${String(code)}`))
  onTestFinished(async () => {
    child.kill('SIGKILL')
    await exited
    rmSync(folder, { recursive: true, force: true })
  })
  const url = `http://127.0.0.1:${port}`
  await until(async () => {
    if (child.exitCode !== null) throw new Error(`${name} ended: ${output}`)
    const answer = await fetch(`${url}/readyz`).catch((error: unknown) => {
      throw new Error(`${name} does not answer: ${output}`, { cause: error })
    })
    if (answer.status !== 200) throw new Error(`${name} answers ${answer.status}: ${output}`)
  })
  return url
}

/** A port that was free a moment ago: proxies cannot say which one they took. */
async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return port
}
