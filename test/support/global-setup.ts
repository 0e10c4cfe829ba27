import type { TestProject } from 'vitest/node'
import { createTemplate, runOnce, startServer } from './postgres.ts'

declare module 'vitest' {
  interface ProvidedContext {
    serverUrl: string
    template: string
  }
}

export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const server = await startServer()
  const template = await createTemplate(server.url)
  project.provide('serverUrl', server.url)
  project.provide('template', template)
  return async () => {
    await runOnce(server.url, `drop database ${template}`)
    await server.stop()
  }
}
