import pg from 'pg'

export function connectAll(databaseUrl: string, count: number, setup?: string): Promise<pg.Client[]> {
  return Promise.all(
    Array.from({ length: count }, async () => {
      const client = new pg.Client({ connectionString: databaseUrl, application_name: 'bench load' })
      await client.connect()
      if (setup !== undefined) await client.query(setup)
      return client
    }),
  )
}
