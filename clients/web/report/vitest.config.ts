import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: { include: ['report/**/*.report.ts'], testTimeout: 300_000, hookTimeout: 120_000, maxWorkers: 1 },
});
