import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import tailwindcss from '@tailwindcss/vite';
import vue from '@vitejs/plugin-vue';
import { defineConfig, type Plugin } from 'vite';

const sdk = (file: string) => fileURLToPath(new URL(`../js/src/${file}`, import.meta.url));

/** Writes `sw.js`, which knows every file of this build by name. */
function serviceWorker(): Plugin {
  return {
    name: 'stormwire-service-worker',
    apply: 'build',
    generateBundle(_, bundle) {
      const files = Object.keys(bundle).filter((name) => name.startsWith('assets/'));
      const version = createHash('sha256').update(files.sort().join()).digest('hex').slice(0, 12);
      const template = readFileSync(new URL('src/sw.js', import.meta.url), 'utf8');
      const shell = ['/', '/manifest.webmanifest', '/icon.svg', ...files.map((name) => `/${name}`)];
      const source = template
        .replace("'__VERSION__'", JSON.stringify(version))
        .replace("['__FILES__']", JSON.stringify(shell));
      this.emitFile({ type: 'asset', fileName: 'sw.js', source });
    },
  };
}

export default defineConfig({
  plugins: [vue(), tailwindcss(), serviceWorker()],
  resolve: {
    alias: [
      { find: '@stormwire/client/outbox', replacement: sdk('outbox.ts') },
      { find: '@stormwire/client', replacement: sdk('index.ts') },
    ],
  },
  build: { target: 'es2022', modulePreload: { polyfill: false } },
  server: {
    proxy: {
      '/v1': { target: process.env['SERVER'] ?? 'http://127.0.0.1:8080', ws: true },
      '/ping': { target: process.env['SERVER'] ?? 'http://127.0.0.1:8080' },
    },
  },
});
