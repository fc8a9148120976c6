{{/* Parts of every pod: restricted pod security, no token, no variables of other Services. */}}

{{- define "millrace.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "millrace.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{/* Takes root and name. */}}
{{- define "millrace.podBasics" -}}
serviceAccountName: {{ include "millrace.name" . }}
automountServiceAccountToken: {{ eq .name "operator" }}
enableServiceLinks: false
securityContext: {{- include "millrace.podSecurity" . | nindent 2 }}
{{- with .root.Values.images.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{/* Takes root and name. What a component has of its own is in millrace.env.NAME, .mounts.NAME and .volumes.NAME. */}}
{{- define "millrace.deployment" -}}
{{- $values := index .root.Values .name -}}
{{- $ports := index (include "millrace.topology" .root | fromYaml).ports .name -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ include "millrace.name" . }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "millrace.labels" . | nindent 4 }}
spec:
  replicas: {{ $values.replicas }}
  revisionHistoryLimit: 5
  strategy:
    rollingUpdate: {maxSurge: 1, maxUnavailable: 0}
  selector:
    matchLabels: {{- include "millrace.selector" . | nindent 6 }}
  template:
    metadata:
      labels:
        {{- include "millrace.podLabels" . | nindent 8 }}
        {{- with $values.podLabels }}{{ toYaml . | nindent 8 }}{{ end }}
      annotations:
        kubectl.kubernetes.io/default-container: {{ .name }}
        checksum/config: {{ include "millrace.checksum" . }}
        {{- with $values.podAnnotations }}{{ toYaml . | nindent 8 }}{{ end }}
    spec:
      {{- include "millrace.podBasics" . | nindent 6 }}
      terminationGracePeriodSeconds: {{ add .root.Values.preStopSeconds .root.Values.drainSeconds 10 }}
      {{- if .root.Values.priorityClasses.enabled }}
      priorityClassName: {{ include "millrace.name" (dict "root" .root "name" "core") }}
      {{- end }}
      {{- with $values.nodeSelector }}
      nodeSelector: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $values.tolerations }}
      tolerations: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $values.affinity }}
      affinity: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- if .root.Values.topologySpread.enabled }}
      topologySpreadConstraints:
        {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
        - topologyKey: {{ . }}
          maxSkew: 1
          whenUnsatisfiable: {{ $.root.Values.topologySpread.whenUnsatisfiable }}
          matchLabelKeys: [pod-template-hash]
          labelSelector:
            matchLabels: {{- include "millrace.selector" $ | nindent 14 }}
        {{- end }}
      {{- end }}
      containers:
        - name: {{ .name }}
          image: {{ include "millrace.image" . | quote }}
          imagePullPolicy: {{ .root.Values.images.pullPolicy }}
          securityContext: {{- include "millrace.containerSecurity" . | nindent 12 }}
          envFrom:
            - configMapRef: {name: {{ include "millrace.name" (dict "root" .root "name" "environment") }}}
          env:
            {{- with include "millrace.secretEnvironment" .root | trim }}{{ . | nindent 12 }}{{ end }}
            - {name: MILLRACE_{{ upper .name }}__ADMIN_PORT, value: {{ $ports.admin | quote }}}
            {{- with include (printf "millrace.env.%s" .name) .root | trim }}{{ . | nindent 12 }}{{ end }}
            {{- with $values.extraEnv }}{{ toYaml . | nindent 12 }}{{ end }}
          ports:
            {{- range $name, $number := $ports }}
            - {name: {{ $name }}, containerPort: {{ $number }}}
            {{- end }}
          startupProbe: # as soon as it runs; ready is another question
            httpGet: {path: /healthz, port: admin}
            periodSeconds: 1
            timeoutSeconds: 2
            failureThreshold: 60
          readinessProbe:
            httpGet: {path: /readyz, port: admin}
            periodSeconds: 2
            timeoutSeconds: 2
            failureThreshold: 5  # a store that restarts is missed by all replicas, and none left means no answer at all
          livenessProbe:
            httpGet: {path: /healthz, port: admin}
            periodSeconds: 10
            timeoutSeconds: 5
            failureThreshold: 3
          lifecycle: # endpoints leave before the process does
            preStop: {sleep: {seconds: {{ .root.Values.preStopSeconds }}}}
          resources: {{- toYaml $values.resources | nindent 12 }}
          volumeMounts:
            - {name: tmp, mountPath: /tmp}
            {{- with include (printf "millrace.mounts.%s" .name) .root | trim }}{{ . | nindent 12 }}{{ end }}
            {{- with $values.extraVolumeMounts }}{{ toYaml . | nindent 12 }}{{ end }}
        {{- with $values.extraContainers }}{{ toYaml . | nindent 8 }}{{ end }}
      volumes:
        - {name: tmp, emptyDir: {sizeLimit: 256Mi}}
        {{- with include (printf "millrace.volumes.%s" .name) .root | trim }}{{ . | nindent 8 }}{{ end }}
        {{- with $values.extraVolumes }}{{ toYaml . | nindent 8 }}{{ end }}
{{- end }}

{{/* Changes when what a process read at its start has changed. */}}
{{- define "millrace.checksum" -}}
{{- $read := include "millrace.environment" .root -}}
{{- if eq .name "operator" }}{{ $read = print $read (include "millrace.samples" .root) }}{{ end -}}
{{- sha256sum $read -}}
{{- end }}

{{- define "millrace.mounts.gateway" -}}
- {name: task-id, mountPath: /etc/millrace/task-id, readOnly: true}
{{- end }}
{{- define "millrace.volumes.gateway" -}}
- name: task-id
  secret: {secretName: {{ .Values.taskId.existingSecret | default (include "millrace.name" (dict "root" . "name" "task-id")) }}}
{{- end }}

{{- define "millrace.mounts.operator" -}}
{{- if include "millrace.hasSamples" . }}
- {name: samples, mountPath: /etc/millrace/samples, readOnly: true}
{{- end }}
{{- end }}
{{- define "millrace.volumes.operator" -}}
{{- if include "millrace.hasSamples" . }}
- name: samples
  configMap: {name: {{ include "millrace.name" (dict "root" . "name" "samples") }}}
{{- end }}
{{- end }}

{{/* These need nothing of their own. */}}
{{- define "millrace.mounts.ratelimiter" }}{{ end }}
{{- define "millrace.volumes.ratelimiter" }}{{ end }}
{{- define "millrace.mounts.cache" }}{{ end }}
{{- define "millrace.volumes.cache" }}{{ end }}
{{- define "millrace.mounts.router" }}{{ end }}
{{- define "millrace.volumes.router" }}{{ end }}
{{- define "millrace.mounts.dispatcher" }}{{ end }}
{{- define "millrace.volumes.dispatcher" }}{{ end }}
