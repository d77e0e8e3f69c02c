// Makes JSON schemas for kubeconform: strict ones of the custom resources that the chart uses, from the types
// that @kubernetes-models publishes, and those of the core, from the package kubernetes-validate, each with
// its definitions in itself, as kubeconform wants them. `node schemas.mjs MODULES CORE FOLDER`
import { createRequire } from "node:module";
import { mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";

const [modules, core, folder] = process.argv.slice(2).map((path) => resolve(path));
const { createGenerator } = createRequire(join(modules, "x.js"))("ts-json-schema-generator");
const models = join(modules, "@kubernetes-models");

const KINDS = [
  ["keda", "keda.sh", "v1alpha1", "ScaledObject"],
  ["prometheus-operator", "monitoring.coreos.com", "v1", "ServiceMonitor"],
  ["prometheus-operator", "monitoring.coreos.com", "v1", "PrometheusRule"],
  ["gateway-api", "gateway.networking.k8s.io", "v1", "HTTPRoute"],
  ["cloudnative-pg", "postgresql.cnpg.io", "v1", "Cluster"],
  ["cloudnative-pg", "postgresql.cnpg.io", "v1", "ScheduledBackup"],
  ["external-secrets", "external-secrets.io", "v1", "ExternalSecret"],
];

for (const [model, group, version, kind] of KINDS) {
  const path = join(models, model, group, version, `${kind}.d.ts`);
  const schema = createGenerator({ path, type: `I${kind}`, skipTypeCheck: true, tsconfig: join(import.meta.dirname, "tsconfig.json"), expose: "none", topRef: true }).createSchema(`I${kind}`);
  // TypeScript knows no maps of unknown fields: an object without fields takes any.
  for (const definition of Object.values(schema.definitions)) {
    if (definition.type === "object" && definition.additionalProperties === false && !definition.properties) {
      definition.additionalProperties = true;
    }
  }
  mkdirSync(join(folder, group), { recursive: true });
  writeFileSync(join(folder, group, `${kind.toLowerCase()}_${version}.json`), JSON.stringify(schema));
}

const inside = (text) => text.replaceAll("/api/_definitions.json#", "#");
const { $defs: definitions } = JSON.parse(inside(readFileSync(join(core, "_definitions.json"), "utf8")));
const wanted = (text, found = {}) => {
  for (const [, name] of text.matchAll(/"#\/\$defs\/([^"]+)"/g)) {
    if (!(name in found)) {
      found[name] = definitions[name];
      wanted(JSON.stringify(found[name]), found);
    }
  }
  return found;
};
mkdirSync(join(folder, "core"), { recursive: true });
const kinds = /^(configmap|service|serviceaccount|deployment|statefulset|job|cronjob|poddisruptionbudget|horizontalpodautoscaler|ingress|networkpolicy|secret|namespace)-([a-z]+-)?v\d\.json$/;
for (const file of readdirSync(core).filter((name) => kinds.test(name))) {
  const text = inside(readFileSync(join(core, file), "utf8"));
  const { $id: _, ...schema } = JSON.parse(text);
  writeFileSync(join(folder, "core", file), JSON.stringify({ ...schema, $defs: wanted(text) }));
}
