{{/*
What is there only while Helm runs something: a Pod of our image, an account and rights of its own. In: name, event (of
Helm), keep (whether it stays where it failed, so that its log can be read). Out: the metadata of each, but for a namespace.
*/}}
{{- define "stepmemo.hook" -}}
name: stepmemo-{{ .name }}
labels:
  app.kubernetes.io/name: stepmemo
  app.kubernetes.io/component: {{ .name }}
  app.kubernetes.io/part-of: stepmemo
annotations:
  helm.sh/hook: {{ .event }}
  helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded{{ if not .keep }},hook-failed{{ end }}
{{- end -}}

{{/*
The spec of such a Pod. In: chart, name, command (a list), volumes (by the directory each is mounted at; may be left out).
*/}}
{{- define "stepmemo.hook-pod" -}}
serviceAccountName: stepmemo-{{ .name }}
restartPolicy: Never
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  seccompProfile:
    type: RuntimeDefault
{{ include "stepmemo.placement" (dict "chart" .chart "given" .chart.Values.webhook) -}}
containers:
  - name: {{ .name }}
    image: {{ include "stepmemo.image" .chart }}
    imagePullPolicy: {{ .chart.Values.image.pullPolicy }}
    command: {{ toJson .command }}
    resources:
      requests:
        cpu: 50m
        memory: 64Mi
      limits:
        memory: 256Mi
    securityContext:
      allowPrivilegeEscalation: false
      readOnlyRootFilesystem: true
      capabilities:
        drop: [ALL]
    {{- with .volumes }}
    volumeMounts:
      {{- range $directory, $_ := . }}
      - name: {{ base $directory }}
        mountPath: {{ $directory }}
        readOnly: true
      {{- end }}
    {{- end }}
{{- with .volumes }}
volumes:
  {{- range $directory, $source := . }}
  - {{ merge (dict "name" (base $directory)) $source | toJson }}
  {{- end }}
{{- end }}
{{- end -}}

