import { existsSync, readFileSync } from 'node:fs'
import { expect, test } from 'vitest'

// What must hold of the files that put pullgate into containers. The compose file is written in block style, so that
// its lines can be read one by one.

const root = new URL('../../', import.meta.url)
const read = (path: string) => readFileSync(new URL(path, root), 'utf8')
const compose = read('docker-compose.yml')
const dockerfile = read('Dockerfile')

/** The lines below `key:`, up to the next line that is indented as little as the key. */
function block(text: string, indent: number, key: string): string | undefined {
  const lines = text.split('\n')
  const start = lines.findIndex((line) => line.startsWith(`${' '.repeat(indent)}${key}:`))
  if (start < 0) return undefined
  const rest = lines.slice(start + 1)
  const end = rest.findIndex((line) => line.trim() !== '' && line.search(/\S/) <= indent)
  return rest.slice(0, end < 0 ? undefined : end).join('\n')
}

const services = block(compose, 0, 'services') ?? ''
const serviceNames = [...services.matchAll(/^ {2}([\w-]+):$/gm)].map(([, name = '']) => name)
const service = (name: string) => block(services, 2, name) ?? ''
const items = (text: string | undefined) =>
  [...(text ?? '').matchAll(/^ *- (.*)$/gm)].map(([, item = '']) => item.replace(/^(['"])(.*)\1$/, '$2'))

test('the services are those of the overview', () => {
  expect(serviceNames).toEqual(['postgres', 'migrate', 'gateway', 'prometheus', 'grafana', 'demo'])
})

test('every published port binds 127.0.0.1', () => {
  const published = serviceNames.map((name) => [name, items(block(service(name), 4, 'ports'))] as const)
  for (const [name, ports] of published) {
    for (const port of ports) expect(port, name).toMatch(/^127\.0\.0\.1:\$\{[A-Z_]+:-\d+\}:\d+$/)
  }
  const withPorts = published.filter(([, ports]) => ports.length > 0).map(([name]) => name)
  expect(withPorts).toEqual(['postgres', 'gateway', 'prometheus', 'grafana'])
  // No other way out: neither ports in another style, nor the host's network.
  expect(compose.match(/\bports:/g)).toHaveLength(withPorts.length)
  expect(compose).not.toMatch(/network_mode|published:/)
})

test('the gateway without tokens says so in so many words', () => {
  const environment = block(service('gateway'), 4, 'environment')
  expect(environment).toMatch(/^ *# .*\n *PULLGATE_AUTH: 'off'$/m)
  expect(environment).toMatch(/^ *PULLGATE_HOST: 0\.0\.0\.0$/m)
  expect(compose.match(/^ *PULLGATE_AUTH:/gm)).toHaveLength(1)
})

test('images are pinned', () => {
  const images = [
    ...[...compose.matchAll(/^ *image: (.*)$/gm)].map(([, image = '']) => image),
    ...[...dockerfile.matchAll(/^ARG NODE_IMAGE=(.*)$/gm)].map(([, image = '']) => image),
  ]
  expect(images).toHaveLength(5)
  for (const image of images) {
    expect(image).toMatch(/^[a-z/]+:[\w.-]+$/)
    expect(image).not.toMatch(/:latest$/)
    if (image !== 'pullgate:dev') expect(image).toMatch(/:v?\d+/)
  }
  const bases = [...dockerfile.matchAll(/^FROM (\S+)/gm)].map(([, base]) => base)
  expect(new Set(bases)).toEqual(new Set(['${NODE_IMAGE}']))
})

test('each service waits for what it needs', () => {
  const needs = (name: string) => block(service(name), 4, 'depends_on') ?? ''
  expect(needs('migrate')).toContain('postgres: { condition: service_healthy }')
  expect(needs('gateway')).toContain('postgres: { condition: service_healthy }')
  expect(needs('gateway')).toContain('migrate: { condition: service_completed_successfully }')
  expect(needs('demo')).toContain('gateway: { condition: service_healthy }')
  expect(needs('grafana')).toContain('prometheus: { condition: service_healthy }')
  for (const name of ['postgres', 'gateway', 'prometheus', 'grafana']) {
    expect(block(service(name), 4, 'healthcheck'), name).toMatch(/test: \['CMD', /)
  }
  // The socket answers while the image still initialises; TCP does not.
  expect(service('postgres')).toContain("'pg_isready', '-h', '127.0.0.1'")
})

test('Docker does not cut a drain short', () => {
  const grace = /stop_grace_period: (\d+)s/.exec(service('gateway'))?.[1]
  const stop = /PULLGATE_STOP_TIMEOUT_SECONDS: '(\d+)'/.exec(service('gateway'))?.[1]
  expect(Number(grace)).toBeGreaterThan(Number(stop))
})

test('traffic comes only when asked for', () => {
  const withProfile = serviceNames.filter((name) => service(name).includes('profiles:'))
  expect(withProfile).toEqual(['demo'])
  expect(service('demo')).toContain('profiles: [demo]')
})

test('mounted files exist', () => {
  const mounts = serviceNames.flatMap((name) => items(block(service(name), 4, 'volumes')))
  const paths = mounts.filter((mount) => mount.startsWith('.')).map((mount) => mount.split(':')[0] ?? '')
  expect(paths).toHaveLength(4)
  for (const path of paths) expect(existsSync(new URL(path, root)), path).toBe(true)
})

test('Grafana finds the dashboard and opens on it', () => {
  const [, home = ''] = /HOME_DASHBOARD_PATH: (\S+)/.exec(service('grafana')) ?? []
  const provider = read('grafana/provisioning/dashboards/pullgate.yaml')
  const [, folder = ''] = /path: (\S+)/.exec(provider) ?? []
  expect(service('grafana')).toContain(`./grafana/dashboards:${folder}:ro`)
  expect(home.startsWith(`${folder}/`)).toBe(true)
  expect(existsSync(new URL(`grafana/dashboards${home.slice(folder.length)}`, root))).toBe(true)
  expect(service('grafana')).toContain('GF_AUTH_ANONYMOUS_ORG_ROLE: Viewer')
})

test('Prometheus scrapes the gateway, and Grafana asks Prometheus', () => {
  expect(read('grafana/prometheus/prometheus.yml')).toContain(`targets: ['gateway:8080']`)
  expect(read('grafana/provisioning/datasources/prometheus.yaml')).toContain('url: http://prometheus:9090')
})

test('the image runs as a plain user, without a shell around it and without what only development needs', () => {
  const last = dockerfile.slice(dockerfile.lastIndexOf('\nFROM '))
  expect(last).toMatch(/^USER [1-9]\d*:[1-9]\d*$/m)
  expect(last).toMatch(/^HEALTHCHECK .*CMD \["node", "dist\/cli\/pullgate\.js", "health"\]$/m)
  expect(last).toMatch(/^CMD \["node", "dist\/cli\/pullgate\.js", "serve"\]$/m)
  expect(last).toMatch(/^ENV NODE_ENV=production$/m)
  expect(last).toMatch(/^COPY --from=dependencies \/app\/node_modules node_modules$/m)
  expect(last).not.toMatch(/npm/)
  const { version } = JSON.parse(read('package.json')) as { version: string }
  expect(last).toContain(`ARG VERSION=${version}\n`)
  const installs = dockerfile.match(/^RUN npm ci .*$/gm) ?? []
  expect(installs).toHaveLength(2)
  for (const install of installs) expect(install).toContain('--omit=optional')
  expect(installs[1]).toContain('--omit=dev')
})
