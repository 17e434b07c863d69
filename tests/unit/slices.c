/* SPDX-License-Identifier: BSD-2-Clause */
#include "slices.h"

#include <stdio.h>
#include <stdlib.h>

#include "unit.h"

char *many(unsigned int n, bool slices)
{
	char *text = malloc(256 + n * 256UL), *at = text;
	unsigned int i;

	assert_non_null(text);
	at += sprintf(at, "{\"kind\":\"EndpointSliceList\",\"metadata\":{\"resourceVersion\":"
			  "\"42\"},\"items\":[");
	for (i = 0; i < n; i++) {
		if (slices || !i)
			at += sprintf(at,
				      "%s{\"metadata\":{\"name\":\"s%u\",\"labels\":{"
				      "\"kubernetes.io/service-name\":\"kubernetes\"}},"
				      "\"addressType\":\"IPv4\"," HTTPS ",\"endpoints\":[",
				      i ? "," : "", i);
		/* The largest first. */
		at += sprintf(at, "%s{\"addresses\":[\"10.0.%u.%u\"]}", slices || !i ? "" : ",",
			      (n - i) / 256, (n - i) % 256);
		if (slices || i == n - 1)
			at += sprintf(at, "]}");
	}
	sprintf(at, "]}");
	return text;
}
