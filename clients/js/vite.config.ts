import { defineConfig } from 'vite';

export default defineConfig({
  build: {
    target: 'es2022',
    minify: true,
    sourcemap: true,
    // A library's ES modules keep their blanks otherwise.
    rolldownOptions: { output: { minify: true } },
    lib: {
      entry: { index: 'src/index.ts', protobuf: 'src/protobuf.ts', outbox: 'src/outbox.ts' },
      formats: ['es'],
    },
  },
});
