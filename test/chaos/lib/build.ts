import { spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import ts from 'typescript'

/** The gateway that a campaign runs: a compiled copy, which starts faster than the sources, and can be a broken one. */

/** `find` has to be in the file exactly once. */
export type Edit = { readonly file: string; readonly find: string; readonly replace: string }

export type Build = { readonly root: string; migrate(url: string): Promise<void>; remove(): void }

const repository = new URL('../../../', import.meta.url).pathname

/** The text of the file with its edits. */
export function edited(file: string, edits: readonly Edit[]): string {
  let text = readFileSync(join(repository, file), 'utf8')
  for (const { find, replace } of edits.filter((one) => one.file === file)) {
    if (text.split(find).length !== 2) throw new Error(`${file} does not have once: ${find}`)
    text = text.replace(find, () => replace)
  }
  return text
}

async function run(
  root: string,
  args: readonly string[],
  environment: Record<string, string> = {},
): Promise<void> {
  const { PATH, HOME, TMPDIR } = process.env
  const child = spawn(process.execPath, args, {
    cwd: root,
    env: { PATH, HOME, TMPDIR, ...environment },
    stdio: ['ignore', 'ignore', 'inherit'],
  })
  const [code] = (await once(child, 'exit')) as [number | null]
  if (code !== 0) throw new Error(`${args.join(' ')} ended with ${code}`)
}

/** Each file on its own and unchecked: a second instead of ten. */
function transpile(edits: readonly Edit[], root: string): void {
  const { config } = ts.readConfigFile(join(repository, 'tsconfig.json'), ts.sys.readFile) as {
    config: object
  }
  const { options } = ts.parseJsonConfigFileContent(config, ts.sys, repository)
  // What nodenext means here; for a single file it would be looked up, and not found.
  const compilerOptions = {
    ...options,
    module: ts.ModuleKind.ESNext,
    moduleResolution: ts.ModuleResolutionKind.Bundler,
  }
  for (const name of readdirSync(join(repository, 'src'), { recursive: true, encoding: 'utf8' })) {
    if (!name.endsWith('.ts')) continue
    const fileName = join(repository, 'src', name)
    const { outputText } = ts.transpileModule(edited(`src/${name}`, edits), {
      fileName,
      compilerOptions,
    })
    const target = join(root, 'dist', name.replace(/\.ts$/, '.js'))
    mkdirSync(dirname(target), { recursive: true })
    writeFileSync(target, outputText)
  }
}

export function buildGateway(edits: readonly Edit[] = []): Build {
  const root = mkdtempSync(join(tmpdir(), 'pullgate-chaos-build-'))
  for (const name of ['sql', 'package.json'])
    cpSync(join(repository, name), join(root, name), { recursive: true })
  symlinkSync(join(repository, 'node_modules'), join(root, 'node_modules'))
  for (const { file } of edits)
    if (file.startsWith('sql/')) writeFileSync(join(root, file), edited(file, edits))
  transpile(edits, root)
  return {
    root,
    migrate: (url) => run(root, ['dist/cli/pullgate.js', 'migrate'], { DATABASE_URL: url }),
    remove: () => rmSync(root, { recursive: true, force: true }),
  }
}
