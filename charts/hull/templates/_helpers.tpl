{{/* SPDX-License-Identifier: Apache-2.0 */}}

{{- define "hull.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "hull.selector" -}}
app.kubernetes.io/name: hull
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "hull.labels" -}}
{{ include "hull.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "hull.image" -}}
{{- $repository := .Values.image.repository | required "image.repository is not set: push hull-installer-VERSION.tar of `make release` to a registry, and name it here" -}}
{{- if .Values.image.digest -}}
{{ $repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ $repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- define "hull.socket" -}}
{{- .Values.config.socket | default "/run/hull/hull.sock" -}}
{{- end -}}

{{/*
A value of the configuration in TOML. Helm's own toToml writes whole numbers as 1.0, because JSON, as Helm reads it,
has only floating-point numbers. Strings of JSON are strings of TOML.
*/}}
{{- define "hull.tomlValue" -}}
{{- if kindIs "slice" . -}}
[{{ range $at, $each := . }}{{ if $at }}, {{ end }}{{ include "hull.tomlValue" $each }}{{ end }}]
{{- else if or (kindIs "float64" .) (kindIs "int64" .) (kindIs "int" .) -}}
{{- int64 . -}}
{{- else -}}
{{- toJson . -}}
{{- end -}}
{{- end -}}

{{/* A table of the configuration (dict "path" "" "table" …): values first, then tables, then lists of tables. */}}
{{- define "hull.tomlTable" -}}
{{- $path := .path -}}
{{- range $key, $value := .table }}
{{- if and (not (kindIs "map" $value)) (not (kindIs "invalid" $value)) (not (include "hull.isTables" $value)) }}
{{ $key }} = {{ include "hull.tomlValue" $value }}
{{- end }}
{{- end }}
{{- range $key, $value := .table }}
{{- $name := ternary $key (printf "%s.%s" $path $key) (eq $path "") }}
{{- if kindIs "map" $value }}

[{{ $name }}]
{{- include "hull.tomlTable" (dict "path" $name "table" $value) }}
{{- else if include "hull.isTables" $value }}
{{- range $value }}

[[{{ $name }}]]
{{- include "hull.tomlTable" (dict "path" $name "table" .) }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Not empty for a list whose first item is a table. */}}
{{- define "hull.isTables" -}}
{{- if and (kindIs "slice" .) (gt (len .) 0) -}}
{{- if kindIs "map" (first .) -}}yes{{- end -}}
{{- end -}}
{{- end -}}
