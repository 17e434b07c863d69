/* SPDX-License-Identifier: BSD-2-Clause */
/* Keeps this node's own backends in the list, and leaves out the others where they are not wanted.
 */
#include "balance/local_list.h"

#include "net/endpoint.h"

/* The backends that may be known and not listed: the file's, and the applied ones. */
static unsigned int collect_known(const struct config *file, const struct plan *applied,
				  struct klb_endpoint *ret)
{
	unsigned int n = file->n_backends;

	config_endpoints(file, ret);
	for (unsigned int i = 0; applied && i < applied->n_backends; i++)
		if (!applied->backends[i].removed)
			ret[n++] = applied->backends[i].value.endpoint;
	return n;
}

static unsigned int keep_local(const struct config *file, const struct plan *applied,
			       local_list_fn is_local, struct klb_endpoint *list, unsigned int n)
{
	struct klb_endpoint known[KLB_MAX_BACKENDS + KLB_MAX_IDS];
	bool local[KLB_MAX_BACKENDS + KLB_MAX_IDS];
	unsigned int n_known = collect_known(file, applied, known);

	is_local(known, n_known, local);
	for (unsigned int i = 0; i < n_known && n < KLB_MAX_BACKENDS; i++)
		if (local[i] && !endpoint_is_in(list, n, &known[i]))
			list[n++] = known[i];
	return n;
}

unsigned int local_list_apply(const struct config *file, const struct plan *applied,
			      local_list_fn is_local, struct klb_endpoint *list, unsigned int n,
			      bool *ret_local)
{
	bool local[KLB_MAX_BACKENDS];
	unsigned int n_local = 0;

	*ret_local = false;
	if (file->local == KLB_LOCAL_IGNORE)
		return n;
	if (file->discovery)
		n = keep_local(file, applied, is_local, list, n);
	is_local(list, n, local);
	for (unsigned int i = 0; i < n; i++)
		n_local += local[i];
	*ret_local = n_local > 0;
	if (file->local != KLB_LOCAL_ONLY || !n_local)
		return n;
	n_local = 0;
	for (unsigned int i = 0; i < n; i++)
		if (local[i])
			list[n_local++] = list[i];
	return n_local;
}
