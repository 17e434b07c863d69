/* SPDX-License-Identifier: BSD-2-Clause */
/* kubelb-load --check: lists the features of this kernel, as text or as JSON. */
#include "load/check.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include <jansson.h>

#include "base/cli.h"
#include "datapath/datapath.h"

static void print_feature(const struct datapath_feature *f)
{
	printf("%-8s %-16s %s%s%s%s\n",
	       f->present    ? "ok"
	       : f->required ? "MISSING"
			     : "absent",
	       f->name, f->purpose, f->detail[0] ? " [" : "", f->detail, f->detail[0] ? "]" : "");
	if (!f->present && f->loss && f->loss[0])
		printf("%-8s %-16s without it, %s\n", "", "", f->loss);
}

static void print_features_json(const struct datapath_feature *features, unsigned int n,
				bool usable)
{
	json_t *list = json_array();
	json_t *root = json_pack("{s:b, s:s, s:o}", "usable", usable, "dataPath",
				 usable ? "kernel" : "relay", "features", list);

	for (unsigned int i = 0; i < n; i++)
		json_array_append_new(
			list, json_pack("{s:s, s:s, s:b, s:b, s:s, s:s?}", "name", features[i].name,
					"purpose", features[i].purpose, "required",
					features[i].required, "present", features[i].present,
					"detail", features[i].detail, "loss", features[i].loss));
	json_dumpf(root, stdout, JSON_INDENT(2));
	putchar('\n');
	json_decref(root);
}

int check_kernel(const char *pin_dir, const char *cgroup, bool json)
{
	struct datapath_feature features[DATAPATH_FEATURES_MAX];
	unsigned int n, missing = 0;
	struct err e;

	if (geteuid()) {
		err_set(&e, EPERM, "must run as root: --check asks the kernel what it has");
		return cli_fail(CLI_FAILED, &e);
	}
	n = datapath_features(pin_dir, cgroup, features, DATAPATH_FEATURES_MAX);
	for (unsigned int i = 0; i < n; i++)
		missing += features[i].required && !features[i].present;
	if (json)
		print_features_json(features, n, !missing);
	else
		for (unsigned int i = 0; i < n; i++)
			print_feature(&features[i]);
	if (!missing)
		return CLI_OK;
	err_set(&e, ENOSYS,
		"%u of the features that kubelb needs %s missing (listed above): here kubelb-agent "
		"relays every connect (dataPath: auto or relay)",
		missing, missing == 1 ? "is" : "are");
	return cli_fail(CLI_FAILED, &e);
}
