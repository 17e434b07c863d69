{{/* What a Deployment, a DaemonSet and their pods are found by; must never change. */}}
{{- define "kubelb.selector" -}}
app.kubernetes.io/name: kubelb
{{- end }}

{{- define "kubelb.labels" -}}
{{ include "kubelb.selector" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name (.Chart.Version | replace "+" "_") }}
{{- end }}

{{- define "kubelb.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{/* The address with a port that the agent serves at; nothing if it has a socket alone, or none. */}}
{{- define "kubelb.httpAddress" -}}
{{- $places := .Values.http -}}
{{- if kindIs "string" $places }}{{ $places = list $places }}{{ end -}}
{{- range $places -}}
{{- if and . (not (hasPrefix "unix:" .)) }}{{ . }}{{ end -}}
{{- end -}}
{{- end }}

{{- define "kubelb.httpHost" -}}
{{ include "kubelb.httpAddress" . | trimSuffix (printf ":%s" (include "kubelb.httpPort" .)) | trimAll "[]" }}
{{- end }}

{{- define "kubelb.httpPort" -}}
{{ regexFind "[0-9]+$" (include "kubelb.httpAddress" .) }}
{{- end }}

{{/* "true" where nobody outside of the node can ask. */}}
{{- define "kubelb.httpIsLocal" -}}
{{- $host := include "kubelb.httpHost" . -}}
{{- if or (not $host) (hasPrefix "127." $host) (eq $host "::1") }}true{{ end -}}
{{- end }}

{{/* How the kubelet asks: .path at the address, or .ping at the socket. */}}
{{- define "kubelb.probe" -}}
{{- $host := include "kubelb.httpHost" .root -}}
{{- if $host -}}
httpGet:
  host: {{ get (dict "0.0.0.0" "127.0.0.1" "::" "::1") $host | default $host | quote }}
  port: {{ include "kubelb.httpPort" .root }}
  path: {{ .path }}
{{- else -}}
exec:
  command: {{ .ping | toJson }}
{{- end -}}
{{- end }}

{{/* Nodes of the control plane are left out of each term of the affinity: the terms are ORed. */}}
{{- define "kubelb.affinity" -}}
{{- $affinity := deepCopy .Values.affinity -}}
{{- if not (or .Values.controlPlanes .Values.detach) -}}
{{- $absent := list -}}
{{- range list "control-plane" "master" "controlplane" -}}
{{- $key := printf "node-role.kubernetes.io/%s" . -}}
{{- $absent = append $absent (dict "key" $key "operator" "DoesNotExist") -}}
{{- end -}}
{{- $node := get $affinity "nodeAffinity" | default dict -}}
{{- $required := get $node "requiredDuringSchedulingIgnoredDuringExecution" | default dict -}}
{{- $terms := list -}}
{{- range get $required "nodeSelectorTerms" | default (list dict) -}}
{{- $all := concat (get . "matchExpressions" | default list) $absent -}}
{{- $terms = append $terms (merge (dict "matchExpressions" $all) .) -}}
{{- end -}}
{{- $required = merge (dict "nodeSelectorTerms" $terms) $required -}}
{{- $node = merge (dict "requiredDuringSchedulingIgnoredDuringExecution" $required) $node -}}
{{- $affinity = merge (dict "nodeAffinity" $node) $affinity -}}
{{- end -}}
{{- with $affinity }}{{ toYaml . }}{{ end -}}
{{- end }}
