{{/*
The components that the values choose, each with what it is chosen by. Out: a YAML list.
*/}}
{{- define "stepmemo.components" -}}
{{- $direct := eq .Values.access "direct" -}}
{{- $kept := not (empty .Values.namespaces) -}}
{{- $versions := eq .Values.autoKeyReferences "resource-version" -}}
{{- range $component, $chosen := dict
  "access-direct" $direct
  "auto-key-references" (and $versions (not $kept))
  "cert-manager" .Values.certManager.enabled
  "flow-schema" (and .Values.flowSchema (not .Values.highAvailability))
  "host-network" .Values.hostNetwork
  "image-volume" (eq .Values.injection "image-volume")
  "monitoring" .Values.monitoring.enabled
  "namespace-opt-in" .Values.namespaceOptIn
  "namespaces" $kept
  "network-policy" .Values.networkPolicy.enabled
  "no-nudge" (not (or .Values.nudge $direct $kept))
  "people" (not (empty .Values.people))
  "port-10250" (eq (int .Values.port) 10250)
  "postgresql" (eq .Values.store "postgresql")
  "priority-class" (and .Values.priorityClass.create (not .Values.highAvailability))
  "verify-artifacts" .Values.verifyArtifacts
}}
{{- if $chosen }}
- components/{{ $component }}
{{- end }}
{{- end }}
{{- end -}}

{{/*
All objects of the release: those of the base and the components, changed as the values say. Out: a YAML list.
The Namespace is Helm's own to make (--create-namespace).
*/}}
{{- define "stepmemo.objects" -}}
{{- include "stepmemo.checks" . -}}
{{- $install := dict "objects" list -}}
{{- $root := ternary "overlays/ha" "base" .Values.highAvailability -}}
{{- range concat (list $root) (include "stepmemo.components" . | fromYamlArray) -}}
  {{- include "stepmemo.kustomization" (dict "chart" $ "into" $install "directory" .) -}}
{{- end -}}
{{- $objects := list -}}
{{- range $install.objects -}}
  {{- if ne .kind "Namespace" -}}
    {{- include "stepmemo.changed" (dict "chart" $ "object" .) -}}
    {{- $objects = append $objects . -}}
  {{- end -}}
{{- end -}}
{{- range .Values.namespaces -}}
  {{- $roles := dict "objects" list -}}
  {{- include "stepmemo.kustomization" (dict "chart" $ "into" $roles "directory" "components/kept-namespace") -}}
  {{- if eq $.Values.autoKeyReferences "resource-version" -}}
    {{- include "stepmemo.kustomization" (dict "chart" $ "into" $roles "directory" "components/kept-references") -}}
  {{- end -}}
  {{- $namespace := . -}}
  {{- range $roles.objects -}}
    {{- $_ := set .metadata "namespace" $namespace -}}
    {{- $objects = append $objects . -}}
  {{- end -}}
{{- end -}}
{{- range $steps := .Values.directNamespaces -}}
  {{- $roles := dict "objects" list -}}
  {{- include "stepmemo.kustomization" (dict "chart" $ "into" $roles "directory" "components/direct") -}}
  {{- range $roles.objects -}}
    {{- $_ := set .metadata "namespace" $steps.namespace -}}
    {{- range .subjects -}}
      {{- $_ := set . "name" ($steps.serviceAccount | default "default") -}}
      {{- $_ := set . "namespace" $steps.namespace -}}
    {{- end -}}
    {{- $objects = append $objects . -}}
  {{- end -}}
{{- end -}}
{{- toYaml $objects -}}
{{- end -}}

{{/*
Values that do not go together.
*/}}
{{- define "stepmemo.checks" -}}
{{- with .Values -}}
{{- if eq .access "direct" -}}
  {{- if eq .store "postgresql" -}}
    {{- fail "`access: direct` does not go with `store: postgresql`: a step cannot reach the database itself" -}}
  {{- end -}}
  {{- if .namespaces -}}
    {{- fail "`access: direct` does not go with `namespaces`, which are the keeper's: name those of your steps in `directNamespaces`" -}}
  {{- end -}}
  {{- if .verifyArtifacts -}}
    {{- fail "`access: direct` does not go with `verifyArtifacts`: there is no keeper that looks for them" -}}
  {{- end -}}
  {{- if .people -}}
    {{- fail "`access: direct` does not go with `people`: there is no keeper for them to ask" -}}
  {{- end -}}
{{- else if .directNamespaces -}}
  {{- fail "`directNamespaces` goes with `access: direct` alone: else steps need no permission" -}}
{{- end -}}
{{- if and .hostNetwork (eq (int .port) 10250) -}}
  {{- fail "`hostNetwork` does not go with `port: 10250`, which of a node is the kubelet's" -}}
{{- end -}}
{{- if and (or .priorityClass.create .highAvailability) .priorityClass.name -}}
  {{- fail "`priorityClass.name` names a class that is there already: it does not go with `priorityClass.create`, nor with `highAvailability`, which makes one" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/*
Changes an object as the values say. In: chart (the root context), object. Out: nothing.
*/}}
{{- define "stepmemo.changed" -}}
{{- $chart := .chart -}}
{{- $values := .chart.Values -}}
{{- $metadata := .object.metadata -}}
{{- $ofNoNamespace := list
  "ClusterRole" "ClusterRoleBinding" "MutatingWebhookConfiguration" "ValidatingAdmissionPolicy"
  "ValidatingAdmissionPolicyBinding" "PriorityClass" "FlowSchema" "PriorityLevelConfiguration" -}}
{{- if not (has .object.kind $ofNoNamespace) -}}
  {{- $_ := set $metadata "namespace" .chart.Release.Namespace -}}
{{- end -}}
{{- if and (eq .object.kind "Deployment") (eq $metadata.name "stepmemo-webhook") -}}
  {{- $settings := dict -}}
  {{- if ne $values.image.pullPolicy "IfNotPresent" -}}
    {{- $_ := set $settings "image-pull-policy" $values.image.pullPolicy -}}
  {{- end -}}
  {{- if and $values.namespaces (eq $values.autoKeyReferences "resource-version") -}}
    {{- $_ := set $settings "auto-key-references" $values.autoKeyReferences -}}
  {{- end -}}
  {{- include "stepmemo.deployment" (dict "chart" .chart "object" .object "program" "webhook" "settings" $settings) -}}
{{- else if eq .object.kind "Deployment" -}}
  {{- $settings := dict -}}
  {{- with $values.namespaces -}}
    {{- $_ := set $settings "namespaces" (join "," .) -}}
  {{- end -}}
  {{- include "stepmemo.deployment" (dict "chart" .chart "object" .object "program" "keeper" "settings" $settings) -}}
{{- else if and (eq .object.kind "RoleBinding") (eq $metadata.name "stepmemo-people") -}}
  {{- $groups := list -}}
  {{- range $values.people -}}
    {{- $groups = append $groups (dict "apiGroup" "rbac.authorization.k8s.io" "kind" "Group" "name" .) -}}
  {{- end -}}
  {{- $_ := set .object "subjects" $groups -}}
{{- else if and (eq .object.kind "Certificate") (ne $metadata.name "stepmemo-issuer") -}}
  {{- with $values.certManager.issuerRef -}}
    {{- $_ := set $.object.spec "issuerRef" . -}}
  {{- end -}}
{{- else if eq .object.kind "NetworkPolicy" -}}
  {{- $from := ternary $values.networkPolicy.webhookFrom $values.networkPolicy.keeperFrom (eq $metadata.name "stepmemo-webhook") -}}
  {{- range $rule := .object.spec.ingress -}}
    {{- with ternary $values.networkPolicy.metricsFrom $from (eq (index $rule.ports 0).port "metrics") -}}
      {{- $_ := set $rule "from" . -}}
    {{- end -}}
  {{- end -}}
{{- else if hasPrefix "monitoring.coreos.com/" .object.apiVersion -}}
  {{- $_ := merge $metadata.labels $values.monitoring.labels -}}
{{- end -}}
{{- end -}}

{{/*
Changes a program's Deployment. In: chart, object, program (its name among the values), settings (by flag, those that
follow from other values). Out: nothing.
*/}}
{{- define "stepmemo.deployment" -}}
{{- $program := .program -}}
{{- $given := index .chart.Values .program -}}
{{- $pod := .object.spec.template.spec -}}
{{- $container := index $pod.containers 0 -}}
{{- $_ := set $container "image" (include "stepmemo.image" .chart) -}}
{{- $_ := set $container "imagePullPolicy" .chart.Values.image.pullPolicy -}}
{{- $_ := set $container "resources" (mergeOverwrite $container.resources $given.resources) -}}
{{- if not (kindIs "invalid" $given.replicas) -}}
  {{- $_ := set .object.spec "replicas" $given.replicas -}}
{{- end -}}
{{- with .chart.Values.priorityClass.name -}}
  {{- $_ := set $pod "priorityClassName" . -}}
{{- end -}}
{{- range $field, $value := include "stepmemo.placement" (dict "chart" .chart "given" $given) | fromYaml -}}
  {{- $_ := set $pod $field $value -}}
{{- end -}}
{{- range $settings := list .settings $given.settings -}}
{{- range $flag, $value := $settings -}}
  {{- $name := printf "STEPMEMO_%s" (upper $flag | replace "-" "_") -}}
  {{- range $container.env -}}
    {{- if eq .name $name -}}
      {{- fail (printf "`%s.settings.%s`: the chart sets this itself, as other values say (`access`, `injection`, `store`, `namespaces`, `autoKeyReferences`, `nudge` …)" $program $flag) -}}
    {{- end -}}
  {{- end -}}
  {{- $_ := set $container "env" (append $container.env (dict "name" $name "value" $value)) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/*
The image of both programs, and so of what is injected into steps.
*/}}
{{- define "stepmemo.image" -}}
{{- with .Values.image -}}
{{- $name := list .registry .name | compact | join "/" -}}
{{- if .digest -}}
  {{- printf "%s@%s" $name .digest -}}
{{- else -}}
  {{- printf "%s:%s" $name (.tag | default $.Chart.AppVersion) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/*
Where a Pod of ours may run, and with what its image is pulled. In: chart, given (a program's values). Out: fields of a
Pod's spec.
*/}}
{{- define "stepmemo.placement" -}}
{{- with .chart.Values.image.pullSecrets -}}
imagePullSecrets:
{{- range . }}
  - name: {{ . | quote }}
{{- end }}
{{ end -}}
{{- with .given.nodeSelector -}}
nodeSelector: {{- toYaml . | nindent 2 }}
{{ end -}}
{{- with .given.tolerations -}}
tolerations: {{- toYaml . | nindent 2 }}
{{ end -}}
{{- end -}}
