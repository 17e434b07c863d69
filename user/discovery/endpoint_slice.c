/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Makes a list of addresses of what an apiserver says about EndpointSlices (discovery.k8s.io/v1).
 * The sender is authenticated, but may be faulty: sizes are limited before memory is spent, and
 * invalid answers are refused.
 */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "discovery/internal.h"
#include "net/endpoint.h"
#include "base/redact.h"

/* jansson takes up to some 250 bytes for a value; a list of 64 endpoints has 2000. */
#define VALUES_MAX 65536
/* metadata.name; RFC 1123, as Kubernetes limits it. */
#define NAME_MAX_LENGTH 253

#define SERVICE_LABEL "kubernetes.io/service-name"
#define SERVICE "kubernetes"

#define LETTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

bool discovery_usable(const struct klb_endpoint *ep, const struct klb_endpoint *frontends,
		      unsigned int n_frontends)
{
	unsigned int i;

	/* What Kubernetes itself allows in an EndpointSlice (ValidateEndpointIP). */
	if (!ep->port || ep->port > 65535 || endpoint_is_unspecified(ep) ||
	    endpoint_is_loopback(ep) || endpoint_is_multicast(ep) || endpoint_is_link_local(ep))
		return false;
	for (i = 0; i < n_frontends; i++)
		if (endpoint_equal(ep, &frontends[i]))
			return false;
	return true;
}

int discovery_compare(const void *a, const void *b)
{
	const struct klb_endpoint *x = a, *y = b;
	int order = memcmp(x->addr, y->addr, sizeof(x->addr));

	if (order)
		return order;
	return x->port < y->port ? -1 : x->port > y->port;
}

/* --- JSON within limits -------------------------------------------------------------- */

/*
 * Whether text has few enough values. jansson builds the whole tree first, and `[[],[],…` takes a
 * hundred times its size there. This counts at least as many values as there are, and builds
 * nothing.
 */
static bool has_few_values(const char *text, size_t length)
{
	unsigned int values = 0;
	bool quoted = false;
	size_t i;

	/* No value is shorter than a byte. */
	if (length <= VALUES_MAX)
		return true;
	for (i = 0; i < length; i++) {
		if (quoted && text[i] == '\\')
			i++;
		else if (text[i] == '"')
			quoted = !quoted;
		else if (!quoted && strchr("[{,:", text[i]) && text[i])
			values++;
		if (values > VALUES_MAX)
			return false;
	}
	return true;
}

/* what: names the text in messages. Returns NULL with e on failure. */
static json_t *parse(const char *text, size_t length, const char *what, struct err *e)
{
	json_error_t why;
	json_t *root;
	char *quote;

	if (!has_few_values(text, length)) {
		err_set(e, EINVAL, "%s has more than %d values", what, VALUES_MAX);
		return NULL;
	}
	root = json_loadb(text, length, 0, &why);
	/* jansson quotes the text there, which must not be repeated: it may hold a secret. */
	quote = root ? NULL : strstr(why.text, " near ");
	if (quote)
		*quote = '\0';
	if (!root)
		err_set(e, EINVAL, "%s is not JSON: %.128s at byte %d", what, why.text,
			why.position);
	else if (!json_is_object(root))
		err_set(e, EINVAL, "%s is not a JSON object", what);
	else
		return root;
	json_decref(root);
	return NULL;
}

/* "" for a value that is absent or no string. */
static const char *string_of(const json_t *object, const char *key)
{
	const char *s = json_string_value(json_object_get(object, key));

	return s ? s : "";
}

/* The version comes from outside and goes into a URL, so it is checked. */
static int read_version(const json_t *object, char *ret, struct err *e)
{
	const char *version = string_of(json_object_get(object, "metadata"), "resourceVersion");
	size_t length = strlen(version), i;

	if (!length || length > DISCOVERY_VERSION_MAX)
		return err_set(e, EINVAL, "metadata.resourceVersion is missing or too long");
	for (i = 0; i < length; i++)
		if (!isalnum((unsigned char)version[i]) && !strchr("-._", version[i]))
			return err_set(e, EINVAL, "metadata.resourceVersion is '%s'", version);
	memcpy(ret, version, length + 1);
	return 0;
}

/* --- one slice ----------------------------------------------------------------------- */

/* The port named https, or else the only one; 0 when there is neither. */
static unsigned int read_port(const json_t *object)
{
	const json_t *ports = json_object_get(object, "ports");
	json_int_t only = 0, number;
	size_t i, n = 0;

	for (i = 0; i < json_array_size(ports); i++) {
		const json_t *port = json_array_get(ports, i);
		const char *protocol = string_of(port, "protocol");

		number = json_integer_value(json_object_get(port, "port"));
		if ((*protocol && strcmp(protocol, "TCP") != 0) || number < 1 || number > 65535)
			continue;
		if (strcmp(string_of(port, "name"), "https") == 0)
			return (unsigned int)number;
		only = number;
		n++;
	}
	return n == 1 ? (unsigned int)only : 0;
}

/*
 * Parses an address without port or brackets, which endpoint_parse would allow. The slice's
 * addressType says which family it must be.
 */
static bool read_address(const char *text, bool ipv6, unsigned int port, struct klb_endpoint *ret)
{
	const char *allowed = ipv6 ? "0123456789abcdefABCDEF:." : "0123456789.";
	const char *colon = strchr(text, ':');

	if (text[strspn(text, allowed)] || (ipv6 && (!colon || !strchr(colon + 1, ':'))))
		return false;
	return endpoint_parse(text, port, ret, NULL) == 0;
}

/* The API says that an absent condition means ready. */
static bool is_ready(const json_t *endpoint)
{
	return !json_is_false(json_object_get(json_object_get(endpoint, "conditions"), "ready"));
}

/*
 * Keeps the smallest addresses, sorted, each once, so that the order in which they come does not
 * matter.
 */
static void add(struct slice *s, const struct klb_endpoint *ep)
{
	unsigned int i = 0;
	int order = -1;

	while (i < s->n && (order = discovery_compare(&s->list[i], ep)) < 0)
		i++;
	if (i < s->n && order == 0)
		return;
	s->total++;
	if (i == KLB_MAX_BACKENDS)
		return;
	if (s->n < KLB_MAX_BACKENDS)
		s->n++;
	memmove(&s->list[i + 1], &s->list[i], (s->n - 1 - i) * sizeof(*ep));
	s->list[i] = *ep;
}

static void read_endpoint(struct slice *s, const json_t *endpoint, bool ipv6, unsigned int port)
{
	/*
	 * The API says that consumers may use only the first: the others lead to the same endpoint.
	 */
	const json_t *address = json_array_get(json_object_get(endpoint, "addresses"), 0);
	struct klb_endpoint ep;

	if (!is_ready(endpoint))
		s->not_ready++;
	else if (!port || !json_is_string(address) ||
		 !read_address(json_string_value(address), ipv6, port, &ep) ||
		 !discovery_usable(&ep, NULL, 0))
		s->unusable++;
	else
		add(s, &ep);
}

static void read_endpoints(struct slice *s, const json_t *object)
{
	const json_t *endpoints = json_object_get(object, "endpoints");
	const char *type = string_of(object, "addressType");
	unsigned int port = read_port(object);
	bool ipv6 = strcmp(type, "IPv6") == 0;
	size_t i;

	/* A slice of names (FQDN) holds no addresses. */
	if (!ipv6 && strcmp(type, "IPv4") != 0)
		port = 0;
	for (i = 0; i < json_array_size(endpoints); i++)
		read_endpoint(s, json_array_get(endpoints, i), ipv6, port);
}

/* The request has a label selector, but something between may ignore it. */
static bool is_of_service(const json_t *object)
{
	const json_t *labels = json_object_get(json_object_get(object, "metadata"), "labels");

	return strcmp(string_of(labels, SERVICE_LABEL), SERVICE) == 0;
}

static const char *read_name(const json_t *object, struct err *e)
{
	const char *name = string_of(json_object_get(object, "metadata"), "name");

	if (*name && strlen(name) <= NAME_MAX_LENGTH)
		return name;
	err_set(e, EINVAL, "an EndpointSlice without a name, or with one that is too long");
	return NULL;
}

/* --- all slices ---------------------------------------------------------------------- */

static void slice_free(struct slice *s)
{
	if (s)
		free(s->name);
	free(s);
}

void slices_clear(struct slices *s)
{
	while (s->n)
		slice_free(s->at[--s->n]);
}

/* The place of the slice with this name, or s->n. */
static unsigned int find(const struct slices *s, const char *name)
{
	unsigned int i = 0;

	while (i < s->n && strcmp(s->at[i]->name, name) != 0)
		i++;
	return i;
}

static void forget(struct slices *s, const char *name)
{
	unsigned int i = find(s, name);

	if (i == s->n)
		return;
	slice_free(s->at[i]);
	s->at[i] = s->at[--s->n];
}

/* Adds a slice, or replaces the one with its name. */
static int put(struct slices *s, const json_t *object, const char *name, struct err *e)
{
	unsigned int i = find(s, name);
	struct slice *new;

	if (i == SLICES_MAX)
		return err_set(e, EINVAL, "more than %d EndpointSlices", SLICES_MAX);
	new = calloc(1, sizeof(*new));
	if (new)
		new->name = strdup(name);
	if (!new || !new->name) {
		slice_free(new);
		return err_no_memory(e);
	}
	read_endpoints(new, object);
	if (i == s->n)
		s->n++;
	else
		slice_free(s->at[i]);
	s->at[i] = new;
	return 0;
}

/* present: false for a slice that was deleted. */
static int take(struct slices *s, const json_t *object, bool present, struct err *e)
{
	const char *name = read_name(object, e);

	if (!name)
		return -EINVAL;
	if (present && is_of_service(object))
		return put(s, object, name, e);
	forget(s, name);
	return 0;
}

static int read_list(struct slices *s, const json_t *root, char *version, struct err *e)
{
	const json_t *items = json_object_get(root, "items");
	size_t i;
	int r;

	if (strcmp(string_of(root, "kind"), "EndpointSliceList") != 0)
		return err_set(e, EINVAL, "the answer is a '%.64s', not an EndpointSliceList",
			       string_of(root, "kind"));
	if (*string_of(json_object_get(root, "metadata"), "continue"))
		return err_set(e, EINVAL, "the list is only a part, which was not asked for");
	if (!json_is_array(items) && !json_is_null(items))
		return err_set(e, EINVAL, "the list has no items");
	r = read_version(root, version, e);
	for (i = 0; !r && i < json_array_size(items); i++)
		r = take(s, json_array_get(items, i), true, e);
	return r;
}

int slices_list(struct slices *s, const char *text, size_t length, char *version, struct err *e)
{
	char new_version[DISCOVERY_VERSION_MAX + 1];
	struct slices new = { 0 };
	json_t *root = parse(text, length, "the list", e);
	int r;

	if (!root)
		return -EINVAL;
	r = read_list(&new, root, new_version, e);
	json_decref(root);
	if (r) {
		slices_clear(&new);
		return r;
	}
	slices_clear(s);
	*s = new;
	memcpy(version, new_version, sizeof(new_version));
	return 0;
}

/* An ERROR event: its object is a Status. */
static int read_error(const json_t *object, enum slices_event *ret, struct err *e)
{
	json_int_t code = json_integer_value(json_object_get(object, "code"));
	const char *reason = string_of(object, "reason");

	/* The reason is one word of Kubernetes' own, such as InternalError. */
	if (code != 410)
		return err_set(e, EINVAL, "the apiserver ended the watch: %d %.*s",
			       (int)(code % 1000), (int)strspn(reason, LETTERS), reason);
	*ret = SLICES_EVENT_EXPIRED;
	return 0;
}

static int read_change(struct slices *s, const json_t *object, bool present, char *version,
		       enum slices_event *ret, struct err *e)
{
	char new_version[DISCOVERY_VERSION_MAX + 1];
	int r = read_version(object, new_version, e);

	if (!r)
		r = take(s, object, present, e);
	if (r)
		return r;
	memcpy(version, new_version, sizeof(new_version));
	*ret = SLICES_EVENT_CHANGE;
	return 0;
}

static int read_event(struct slices *s, const json_t *event, char *version, enum slices_event *ret,
		      struct err *e)
{
	const json_t *object = json_object_get(event, "object");
	const char *type = string_of(event, "type"), *kind = string_of(object, "kind");

	if (strcmp(type, "ERROR") == 0)
		return read_error(object, ret, e);
	if (strcmp(kind, "EndpointSlice") != 0)
		return err_set(e, EINVAL, "an event about a '%.64s', not an EndpointSlice", kind);
	if (strcmp(type, "BOOKMARK") == 0) {
		*ret = SLICES_EVENT_BOOKMARK;
		return read_version(object, version, e);
	}
	if (strcmp(type, "ADDED") == 0 || strcmp(type, "MODIFIED") == 0)
		return read_change(s, object, true, version, ret, e);
	if (strcmp(type, "DELETED") == 0)
		return read_change(s, object, false, version, ret, e);
	return err_set(e, EINVAL, "an event of the unknown type '%.64s'", type);
}

int slices_watch(struct slices *s, const char *line, size_t length, char *version,
		 enum slices_event *ret, struct err *e)
{
	json_t *event = parse(line, length, "an event", e);
	int r;

	if (!event)
		return -EINVAL;
	r = read_event(s, event, version, ret, e);
	json_decref(event);
	return r;
}

/* --- to a list ----------------------------------------------------------------------- */

static unsigned int unique(struct klb_endpoint *list, unsigned int n)
{
	unsigned int i, kept = 0;

	for (i = 0; i < n; i++)
		if (!kept || !endpoint_equal(&list[i], &list[kept - 1]))
			list[kept++] = list[i];
	return kept;
}

void slices_merge(const struct slices *s, const struct klb_endpoint *frontends,
		  unsigned int n_frontends, struct slices_merged *ret)
{
	/* Too large for the stack. */
	static struct klb_endpoint all[SLICES_MAX * KLB_MAX_BACKENDS];
	unsigned int i, j, n = 0, beyond = 0;

	*ret = (struct slices_merged){ 0 };
	for (i = 0; i < s->n; i++) {
		const struct slice *slice = s->at[i];

		ret->not_ready += slice->not_ready;
		ret->unusable += slice->unusable;
		beyond += slice->total - slice->n;
		for (j = 0; j < slice->n; j++)
			if (discovery_usable(&slice->list[j], frontends, n_frontends))
				all[n++] = slice->list[j];
			else
				ret->unusable++;
	}
	qsort(all, n, sizeof(*all), discovery_compare);
	n = unique(all, n);
	ret->total = n + beyond;
	ret->n = n < KLB_MAX_BACKENDS ? n : KLB_MAX_BACKENDS;
	memcpy(ret->list, all, ret->n * sizeof(*all));
}

/* --- the message of an error ---------------------------------------------------------- */

void slices_status_message(const char *text, size_t length, const char *secret, char *buf,
			   size_t size)
{
	json_t *root = length <= DISCOVERY_STATUS_MAX ? json_loadb(text, length, 0, NULL) : NULL;
	const char *message = string_of(root, "message");

	/* The other side may repeat the token that it got. */
	if (secret && secret_is_in(message, secret))
		message = "";
	snprintf(buf, size, "%s", message);
	json_decref(root);
}
