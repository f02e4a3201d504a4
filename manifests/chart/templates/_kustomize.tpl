{{/*
The chart has no manifests of its own: `base`, `components` and `overlays` are links to the directories that kustomize reads, and what
stands here reads them as kustomize does, as far as they use it. So each object, each right and each change that a
component makes is written down once. tests/manifests/test_chart.py holds what comes out against kustomize.
*/}}

{{/*
The text of a file in the chart, as it is for the release's namespace: the files speak of `stepmemo`.
In: chart (the root context), path.
*/}}
{{- define "stepmemo.file" -}}
{{- $text := .chart.Files.Get .path -}}
{{- if not $text -}}
  {{- fail (printf "%s is missing in this copy of the chart: `base`, `components` and `overlays` are links, and were not followed. Use what `helm package manifests/chart` makes" .path) -}}
{{- end -}}
{{- $namespace := .chart.Release.Namespace -}}
{{- $text = regexReplaceAll "(?m)namespace: stepmemo$" $text (printf "namespace: %s" $namespace) -}}
{{- $text = regexReplaceAll "\\[stepmemo, kube-system\\]" $text (printf "[%s, kube-system]" $namespace) -}}
{{- /* Of cert-manager: names of our Services, and whose CA it puts into the webhook configuration. */ -}}
{{- $text = regexReplaceAll "(?m)(- stepmemo-(?:webhook|keeper))[.]stepmemo(?:(\\.)|$)" $text (printf "${1}.%s${2}" $namespace) -}}
{{- $text = replace "inject-ca-from: stepmemo/" (printf "inject-ca-from: %s/" $namespace) $text -}}
{{- $text -}}
{{- end -}}

{{/*
Adds to `into.objects` what a kustomization holds, and carries out its patches on all that is there by then.
In: chart, into (a dict with the list `objects`, which is changed), directory. Out: nothing.
*/}}
{{- define "stepmemo.kustomization" -}}
{{- $chart := .chart -}}
{{- $into := .into -}}
{{- $directory := .directory -}}
{{- $kustomization := include "stepmemo.file" (dict "chart" $chart "path" (printf "%s/kustomization.yaml" $directory)) | fromYaml -}}
{{- range concat ($kustomization.resources | default list) ($kustomization.components | default list) -}}
  {{- $path := clean (printf "%s/%s" $directory .) -}}
  {{- if not (hasSuffix ".yaml" .) -}}
    {{- include "stepmemo.kustomization" (dict "chart" $chart "into" $into "directory" $path) -}}
  {{- else -}}
    {{- range regexSplit "(?m)^---$" (include "stepmemo.file" (dict "chart" $chart "path" $path)) -1 -}}
      {{- with fromYaml . -}}
        {{- $_ := set $into "objects" (append $into.objects .) -}}
      {{- end -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- range $kustomization.configMapGenerator -}}
  {{- $data := dict -}}
  {{- range .files -}}
    {{- $_ := set $data . (include "stepmemo.file" (dict "chart" $chart "path" (printf "%s/%s" $directory .))) -}}
  {{- end -}}
  {{- $metadata := dict "name" .name "namespace" .namespace "labels" .options.labels -}}
  {{- $_ := set $into "objects" (append $into.objects (dict "apiVersion" "v1" "kind" "ConfigMap" "metadata" $metadata "data" $data)) -}}
{{- end -}}
{{- range $kustomization.patches -}}
  {{- /* Operations of JSON Patch are a list. What is no list says `$patch: delete`, and of what, if no target does. */ -}}
  {{- $change := (printf "is:\n%s" (indent 2 .patch) | fromYaml).is -}}
  {{- $target := .target -}}
  {{- if not $target -}}
    {{- $target = dict "kind" $change.kind "name" $change.metadata.name -}}
  {{- end -}}
  {{- $left := list -}}
  {{- range $object := $into.objects -}}
    {{- $kind := regexMatch (printf "^(%s)$" ($target.kind | default ".*")) $object.kind -}}
    {{- $name := regexMatch (printf "^(%s)$" ($target.name | default ".*")) $object.metadata.name -}}
    {{- if not (and $kind $name) -}}
      {{- $left = append $left $object -}}
    {{- else if kindIs "slice" $change -}}
      {{- range $change -}}
        {{- include "stepmemo.operation" (dict "object" $object "operation" .) -}}
      {{- end -}}
      {{- $left = append $left $object -}}
    {{- end -}}
  {{- end -}}
  {{- $_ := set $into "objects" $left -}}
{{- end -}}
{{- end -}}

{{/*
One operation of a JSON Patch: `add` (at the end of a list too) and `replace`; `test` is for those who read the patch.
In: object (which is changed), operation. Out: nothing.
*/}}
{{- define "stepmemo.operation" -}}
{{- if ne .operation.op "test" -}}
  {{- $steps := list -}}
  {{- range splitList "/" (trimPrefix "/" .operation.path) -}}
    {{- $steps = append $steps (replace "~1" "/" .) -}}
  {{- end -}}
  {{- $value := .operation.value -}}
  {{- $at := .object -}}
  {{- range initial (without $steps "-") -}}
    {{- $at = index $at (ternary (int .) . (kindIs "slice" $at)) -}}
  {{- end -}}
  {{- if eq (last $steps) "-" -}}
    {{- $value = append (get $at (last (initial $steps))) $value -}}
  {{- end -}}
  {{- $_ := set $at (last (without $steps "-")) $value -}}
{{- end -}}
{{- end -}}
