{{/* What the processes are told. Names of variables: services/<name>/settings.py. */}}

{{- define "millrace.kafkaBootstrap" -}}
{{- if include "millrace.hasDevKafka" . -}}
{{ include "millrace.name" (dict "root" . "name" "dev-kafka") }}.{{ .Release.Namespace }}.svc:9092
{{- else -}}
{{ .Values.kafka.bootstrapServers }}
{{- end -}}
{{- end }}

{{- define "millrace.redisUrl" -}}
{{- if include "millrace.hasDevRedis" . -}}
redis://{{ include "millrace.name" (dict "root" . "name" "dev-redis") }}.{{ .Release.Namespace }}.svc:6379/0
{{- else -}}
{{ .Values.redis.url }}
{{- end -}}
{{- end }}

{{/* Entries of the ConfigMaps, of services and of workers alike. What stands in a Secret is not here. */}}
{{- define "millrace.commonEnvironment" -}}
{{- if not .Values.redis.existingSecret }}
MILLRACE_COMMON__REDIS_URL: {{ include "millrace.redisUrl" . | quote }}
{{- end }}
{{- if not .Values.kafka.existingSecret }}
MILLRACE_COMMON__KAFKA_BOOTSTRAP: {{ include "millrace.kafkaBootstrap" . | quote }}
{{- end }}
MILLRACE_COMMON__HOST: "0.0.0.0"
MILLRACE_COMMON__LOG_LEVEL: {{ .Values.logLevel }}
{{- /* gRPC polls in the thread that asked, instead of in a pool that hands over: half the context switches of a message. */}}
GRPC_EXPERIMENTS: "-event_engine_client,-event_engine_listener,-event_engine_for_all_other_endpoints"
{{- end }}

{{/* Entries of the services' own ConfigMap. */}}
{{- define "millrace.environment" -}}
{{ include "millrace.commonEnvironment" . | trim }}
MILLRACE_COMMON__DRAIN_S: {{ .Values.drainSeconds | quote }}
{{- end }}

{{/* Entries of the workers' ConfigMap; the operator adds what belongs to a pool. */}}
{{- define "millrace.workerEnvironment" -}}
{{ include "millrace.commonEnvironment" . | trim }}
MILLRACE_WORKER__CACHE_ADDRESSES: {{ include "millrace.address" (dict "root" . "name" "cache" "port" "calls") }}
{{- end }}

{{/* The two addresses, where they stand in a Secret. */}}
{{- define "millrace.secretEnvironment" -}}
{{- with .Values.redis.existingSecret }}
- name: MILLRACE_COMMON__REDIS_URL
  valueFrom: {secretKeyRef: {name: {{ . }}, key: MILLRACE_COMMON__REDIS_URL}}
{{- end }}
{{- with .Values.kafka.existingSecret }}
- name: MILLRACE_COMMON__KAFKA_BOOTSTRAP
  valueFrom: {secretKeyRef: {name: {{ . }}, key: MILLRACE_COMMON__KAFKA_BOOTSTRAP}}
{{- end }}
{{- end }}

{{/* host:port of a headless Service: a name for all its pods. Takes root, name and the port's name. */}}
{{- define "millrace.address" -}}
{{ include "millrace.name" . }}:{{ index (include "millrace.topology" .root | fromYaml).ports .name .port }}
{{- end }}

{{/* An own address, for those who are called by others one by one. Before the variables that use it. */}}
{{- define "millrace.podIp" -}}
- name: POD_IP
  valueFrom: {fieldRef: {fieldPath: status.podIP}}
{{- end }}

{{- define "millrace.env.gateway" -}}
{{ include "millrace.podIp" . }}
- {name: MILLRACE_GATEWAY__FRAMES_HOST, value: $(POD_IP)}
- {name: MILLRACE_GATEWAY__TASK_SECRET_FILE, value: /etc/millrace/task-id/{{ .Values.taskId.key }}}
- {name: MILLRACE_GATEWAY__LIMITER_ADDRESSES, value: {{ include "millrace.address" (dict "root" . "name" "ratelimiter" "port" "calls") }}}
- {name: MILLRACE_GATEWAY__CACHE_ADDRESSES, value: {{ include "millrace.address" (dict "root" . "name" "cache" "port" "calls") }}}
- {name: MILLRACE_GATEWAY__ROUTER_ADDRESSES, value: {{ include "millrace.address" (dict "root" . "name" "router" "port" "calls") }}}
{{- end }}

{{- define "millrace.env.dispatcher" -}}
{{ include "millrace.podIp" . }}
- {name: MILLRACE_DISPATCHER__ADDRESS, value: $(POD_IP):8105}
- {name: MILLRACE_DISPATCHER__CACHE_ADDRESSES, value: {{ include "millrace.address" (dict "root" . "name" "cache" "port" "calls") }}}
{{- end }}

{{- define "millrace.env.ratelimiter" }}{{ end }}
{{- define "millrace.env.cache" }}{{ end }}
{{- define "millrace.env.router" }}{{ end }}

{{- define "millrace.env.operator" -}}
- name: MILLRACE_OPERATOR__NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- {name: MILLRACE_OPERATOR__NAMESPACE, value: {{ .Release.Namespace }}}
- {name: MILLRACE_OPERATOR__WORKER_IMAGE, value: {{ include "millrace.image" (dict "root" . "name" "worker") | quote }}}
- {name: MILLRACE_OPERATOR__ENGINE_IMAGE, value: {{ .Values.images.engine | default (include "millrace.image" (dict "root" . "name" "triton")) | quote }}}
- {name: MILLRACE_OPERATOR__WORKER_SERVICE_ACCOUNT, value: {{ include "millrace.name" (dict "root" . "name" "worker") }}}
- {name: MILLRACE_OPERATOR__WORKER_ENVIRONMENT, value: {{ include "millrace.name" (dict "root" . "name" "worker-environment") }}}
- {name: MILLRACE_OPERATOR__WORKER_CHECKSUM, value: {{ include "millrace.workerEnvironment" . | sha256sum }}}
{{- with .Values.redis.existingSecret | default .Values.kafka.existingSecret }}
- {name: MILLRACE_OPERATOR__WORKER_SECRET, value: {{ . }}}
{{- end }}
- {name: MILLRACE_OPERATOR__IMAGE_PULL_POLICY, value: {{ .Values.images.pullPolicy }}}
{{- with .Values.images.pullSecrets }}
- {name: MILLRACE_OPERATOR__IMAGE_PULL_SECRETS, value: {{ join "," . | quote }}}
{{- end }}
- {name: MILLRACE_OPERATOR__PARTITIONS, value: {{ .Values.kafka.partitions | quote }}}
- {name: MILLRACE_OPERATOR__REPLICATION, value: {{ ternary 1 .Values.kafka.replication (eq (include "millrace.hasDevKafka" .) "true") | quote }}}
{{- if include "millrace.hasSamples" . }}
- {name: MILLRACE_OPERATOR__SAMPLES, value: /etc/millrace/samples}
- {name: MILLRACE_OPERATOR__SAMPLES_LEDGER, value: {{ include "millrace.name" (dict "root" . "name" "samples-applied") }}}
{{- end }}
{{- end }}
