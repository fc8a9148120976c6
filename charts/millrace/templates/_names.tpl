{{/* Names, labels, images. Most take (dict "root" $ "name" COMPONENT). */}}

{{- define "millrace.fullname" -}}
{{- $chart := .Values.nameOverride | default .Chart.Name -}}
{{- $name := ternary .Release.Name (printf "%s-%s" .Release.Name $chart) (contains $chart .Release.Name) -}}
{{- .Values.fullnameOverride | default $name | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{- define "millrace.name" -}}
{{ include "millrace.fullname" .root }}-{{ .name }}
{{- end }}

{{- define "millrace.selector" -}}
app.kubernetes.io/name: millrace
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .name }}
{{- end }}

{{/* Without versions: a pod is replaced when it has to be, not with every release of the chart. */}}
{{- define "millrace.podLabels" -}}
{{ include "millrace.selector" . }}
app.kubernetes.io/part-of: millrace
{{- end }}

{{- define "millrace.labels" -}}
{{ include "millrace.podLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end }}

{{/* The pods of pools are made by the operator, for any release; they are known by this label. */}}
{{- define "millrace.workerSelector" -}}
matchExpressions:
  - {key: millrace.dev/pool, operator: Exists}
{{- end }}

{{/* name: the image's, not always the component's */}}
{{- define "millrace.image" -}}
{{- $digest := index .root.Values.images.digests .name -}}
{{- $place := printf "%s/millrace-%s" .root.Values.images.registry .name -}}
{{- if $digest }}{{ $place }}@{{ $digest }}{{ else }}{{ $place }}:{{ .root.Values.images.tag | default .root.Chart.AppVersion }}{{ end -}}
{{- end }}

{{/* Ports and edges, as YAML for fromYaml. */}}
{{- define "millrace.topology" -}}
{{ .Files.Get "files/topology.yaml" }}
{{- end }}

{{/* Which of the development pods are made: "true" or nothing. */}}
{{- define "millrace.hasDevKafka" -}}
{{- if and .Values.dev.enabled (not .Values.kafka.bootstrapServers) (not .Values.kafka.existingSecret) }}true{{ end -}}
{{- end }}
{{- define "millrace.hasDevRedis" -}}
{{- if and .Values.dev.enabled (not .Values.redis.url) (not .Values.redis.existingSecret) }}true{{ end -}}
{{- end }}
{{- define "millrace.hasSamples" -}}
{{- if and .Values.dev.enabled .Values.dev.samples }}true{{ end -}}
{{- end }}
