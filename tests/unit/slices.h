/* SPDX-License-Identifier: BSD-2-Clause */
/* EndpointSlices in JSON, as an apiserver sends them. */
#ifndef KUBELB_TESTS_SLICES_H
#define KUBELB_TESTS_SLICES_H

#include <stdbool.h>

#define META(name)                                                                   \
	"\"metadata\":{\"name\":\"" name "\",\"resourceVersion\":\"7\",\"labels\":{" \
	"\"kubernetes.io/service-name\":\"kubernetes\"}}"
#define HTTPS "\"ports\":[{\"name\":\"https\",\"port\":6443,\"protocol\":\"TCP\"}]"
#define V4(name, ports, endpoints) \
	"{" META(name) ",\"addressType\":\"IPv4\"," ports ",\"endpoints\":[" endpoints "]}"
#define V6(name, ports, endpoints) \
	"{" META(name) ",\"addressType\":\"IPv6\"," ports ",\"endpoints\":[" endpoints "]}"
#define READY(address) "{\"addresses\":[\"" address "\"],\"conditions\":{\"ready\":true}}"
#define LIST(items)                                                                  \
	"{\"kind\":\"EndpointSliceList\",\"metadata\":{\"resourceVersion\":\"42\"}," \
	"\"items\":[" items "]}"

#define EVENT(type, object) "{\"type\":\"" type "\",\"object\":" object "}"
/* An EndpointSlice of its own says what it is. */
#define OBJECT(name, version, endpoints)                                                     \
	"{\"kind\":\"EndpointSlice\",\"metadata\":{\"name\":\"" name                         \
	"\",\"resourceVersion\":\"" version "\",\"labels\":{\"kubernetes.io/service-name\":" \
	"\"kubernetes\"}},\"addressType\":\"IPv4\"," HTTPS ",\"endpoints\":[" endpoints "]}"
#define BOOKMARK(version) \
	EVENT("BOOKMARK", \
	      "{\"kind\":\"EndpointSlice\",\"metadata\":{\"resourceVersion\":\"" version "\"}}")
#define EXPIRED EVENT("ERROR", "{\"kind\":\"Status\",\"code\":410,\"reason\":\"Expired\"}")

#define ONE LIST(V4("a", HTTPS, READY("10.0.0.1")))
#define TWO LIST(V4("a", HTTPS, READY("10.0.0.1") "," READY("10.0.0.2")))

/* A list of n slices with one endpoint each, or of one with n; to be freed. */
char *many(unsigned int n, bool slices);

#endif
