{{- define "stormwire.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 40 }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 40 }}{{ end }}
{{- end }}

{{/* Labels of an object; (dict "root" . "component" "gateway"). */}}
{{- define "stormwire.labels" -}}
{{ include "stormwire.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: stormwire
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{- define "stormwire.selector" -}}
app.kubernetes.io/name: stormwire
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* An image by its digest where there is one; (dict "image" .. "default" tag). */}}
{{- define "stormwire.image" -}}
{{- if .image.digest }}{{ .image.repository }}@{{ .image.digest }}{{ else }}{{ .image.repository }}:{{ .image.tag | default .default }}{{ end }}
{{- end }}

{{- define "stormwire.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "stormwire.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* One pod a node where there are nodes, spread over zones; (dict "root" . "component" ..). */}}
{{- define "stormwire.spread" -}}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: topology.kubernetes.io/zone
    whenUnsatisfiable: ScheduleAnyway
    labelSelector: {matchLabels: {{ include "stormwire.selector" . | fromYaml | toJson }}}
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector: {matchLabels: {{ include "stormwire.selector" . | fromYaml | toJson }}}
{{- end }}

{{- define "stormwire.natsHosts" -}}
{{- $name := include "stormwire.name" . -}}
{{- $hosts := list -}}
{{- range $i := until 3 }}{{ $hosts = append $hosts (printf "%s-nats-%d.%s-nats.%s.svc:4222" $name $i $name $.Release.Namespace) }}{{ end -}}
{{- join "," $hosts }}
{{- end }}

{{/* The secret of a role's own login to the database, else the one for all; (dict "root" . "component" ..). */}}
{{- define "stormwire.databaseSecret" -}}
{{- $postgres := .root.Values.postgres -}}
{{- with get $postgres.secrets .component }}{{ . }}{{ else -}}
{{- if $postgres.enabled }}{{ include "stormwire.name" .root }}-postgres-app{{ else -}}
{{- required "postgres.secret is wanted where postgres.enabled is false" $postgres.secret }}{{ end -}}
{{- end -}}
{{- end }}

{{/* What the processes are told beside stormwire.toml: addresses, and secrets by reference; (dict "root" . "component" ..). */}}
{{- define "stormwire.environment" -}}
{{- $database := include "stormwire.databaseSecret" . -}}
{{- with .root -}}
{{- $user := .Values.nats.credentials.user -}}
{{- $name := include "stormwire.name" . -}}
- {name: STORMWIRE_CONFIG, value: /etc/stormwire/stormwire.toml}
{{- if .Values.nats.enabled }}
- {name: NATS_PASSWORD, valueFrom: {secretKeyRef: {name: {{ .Values.nats.credentials.secret }}, key: {{ .Values.nats.credentials.key }}}}}
- name: STORMWIRE_JOURNAL_URL
  value: "{{ range $i, $host := splitList "," (include "stormwire.natsHosts" .) }}{{ if $i }},{{ end }}nats://{{ $user }}:$(NATS_PASSWORD)@{{ $host }}{{ end }}"
{{- else }}
- {name: STORMWIRE_JOURNAL_URL, value: {{ required "nats.url is wanted where nats.enabled is false" .Values.nats.url | quote }}}
{{- end }}
- {name: STORMWIRE_ARCHIVE_URL, valueFrom: {secretKeyRef: {name: {{ $database }}, key: uri}}}
{{- if and .Values.postgres.enabled (gt (int .Values.postgres.instances) 1) }}
- {name: POSTGRES_USER, valueFrom: {secretKeyRef: {name: {{ $database }}, key: username}}}
- {name: POSTGRES_PASSWORD, valueFrom: {secretKeyRef: {name: {{ $database }}, key: password}}}
- {name: STORMWIRE_ARCHIVE_REPLICA_URL, value: "postgres://$(POSTGRES_USER):$(POSTGRES_PASSWORD)@{{ $name }}-postgres-ro:5432/stormwire"}
{{- end }}
{{- if .Values.redis.enabled }}
- {name: REDIS_PASSWORD, valueFrom: {secretKeyRef: {name: {{ .Values.redis.credentials.secret }}, key: {{ .Values.redis.credentials.key }}}}}
- {name: STORMWIRE_LIMITS_URL, value: "redis://:$(REDIS_PASSWORD)@{{ $name }}-redis:6379"}
{{- else if .Values.redis.url }}
- {name: STORMWIRE_LIMITS_URL, value: {{ .Values.redis.url | quote }}}
{{- end }}
{{- end }}
{{- end }}

{{/* The pod of a role; (dict "root" . "component" "gateway" "values" .. "ports" [..] "spread" seconds). */}}
{{- define "stormwire.pod" -}}
metadata:
  labels: {{- include "stormwire.labels" . | nindent 4 }}
  annotations:
    checksum/config: {{ include (print .root.Template.BasePath "/config.yaml") .root | sha256sum }}
    {{- with .root.Values.podAnnotations }}{{ toYaml . | nindent 4 }}{{- end }}
spec:
  serviceAccountName: {{ include "stormwire.name" .root }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  # Until endpoints have forgotten the pod, the spread, and what the program takes at most after it.
  terminationGracePeriodSeconds: {{ add 10 (int .spread) 15 5 }}
  securityContext: {{- include "stormwire.podSecurity" . | nindent 4 }}
  {{- with .root.Values.image.pullSecrets }}
  imagePullSecrets: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .root.Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with .values.nodeSelector }}
  nodeSelector: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .values.tolerations }}
  tolerations: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- include "stormwire.spread" . | nindent 2 }}
  containers:
    - name: {{ .component }}
      image: {{ include "stormwire.image" (dict "image" .root.Values.image "default" .root.Chart.AppVersion) }}
      imagePullPolicy: {{ .root.Values.image.pullPolicy }}
      args: [{{ .component }}]
      env:
        {{- include "stormwire.environment" . | nindent 8 }}
        {{- range $key, $value := .environment }}
        - {name: {{ $key }}, value: {{ $value | quote }}}
        {{- end }}
      ports:
        {{- range .ports }}
        - {name: {{ .name }}, containerPort: {{ .port }}, protocol: TCP}
        {{- end }}
      # The process alone: a dependency that is away must not restart anything.
      startupProbe: {httpGet: {path: /healthz, port: management}, periodSeconds: 2, failureThreshold: 30}
      livenessProbe: {httpGet: {path: /healthz, port: management}, periodSeconds: 10, timeoutSeconds: 5, failureThreshold: 6}
      readinessProbe: {httpGet: {path: /readyz, port: management}, periodSeconds: 5, timeoutSeconds: 5, failureThreshold: 2}
      lifecycle: {preStop: {sleep: {seconds: 10}}}
      resources: {{- toYaml .values.resources | nindent 8 }}
      securityContext: {{- include "stormwire.containerSecurity" . | nindent 8 }}
      volumeMounts:
        - {name: config, mountPath: /etc/stormwire, readOnly: true}
        - {name: scratch, mountPath: /var/lib/stormwire}
        {{- range .mounts }}
        - {name: {{ .name }}, mountPath: {{ .path }}, readOnly: true}
        {{- end }}
  volumes:
    - {name: config, configMap: {name: {{ include "stormwire.name" .root }}}}
    - {name: scratch, emptyDir: {sizeLimit: 64Mi}}
    {{- range .mounts }}
    - {name: {{ .name }}, secret: {secretName: {{ .secret }}, defaultMode: 0440}}
    {{- end }}
{{- end }}

{{/* Peers of a network policy: the pods of a component, a namespace. */}}
{{- define "stormwire.pods" -}}
{podSelector: {matchLabels: {app.kubernetes.io/instance: {{ .root.Release.Name }}, app.kubernetes.io/component: {{ .component }}}}}
{{- end }}
{{- define "stormwire.namespace" -}}
{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: {{ . }}}}}
{{- end }}
