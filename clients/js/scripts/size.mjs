// Prints what the built modules weigh, and fails where one is above its bound.
import { readFileSync } from 'node:fs';
import { gzipSync } from 'node:zlib';

const BOUNDS = { index: 12 * 1024, protobuf: 3 * 1024, outbox: 1536 };

for (const [name, bound] of Object.entries(BOUNDS)) {
  const bytes = gzipSync(readFileSync(new URL(`../dist/${name}.js`, import.meta.url)), { level: 9 }).length;
  process.stdout.write(`${name}.js ${bytes} bytes gzipped, at most ${bound}\n`);
  if (bytes > bound) process.exitCode = 1;
}
