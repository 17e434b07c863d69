/* SPDX-License-Identifier: BSD-2-Clause */
/* The doctor looks at the configuration. */
#include "ctl/doctor.h"

#include <errno.h>

void doctor_check_config(struct doctor *d)
{
	bool attached = d->dp != NULL;

	switch (d->config_result) {
	case 0:
		doctor_say(d, DOCTOR_OK, "config", "%s: %u backends, dataPath %s%s", d->config_path,
			   d->config->n_backends, config_data_path_name(d->config->data_path),
			   d->config->discovery ? ", with discovery" : "");
		break;
	case -EACCES:
	case -EPERM:
		doctor_say(d, DOCTOR_SKIP, "config", "%s", d->config_error.text);
		break;
	case -ENOENT:
		doctor_say(d, attached ? DOCTOR_WARN : DOCTOR_FAULT, "config",
			   "%s: there is no such file, which kubelb-load and the agent read",
			   d->config_path);
		doctor_next(d, "write it (kubelb.yaml.example shows how), or name another by -c");
		break;
	default:
		doctor_say(d, DOCTOR_FAULT, "config", "%s", d->config_error.text);
		doctor_next(d,
			    "correct that; kubelb-load -n -c %s checks it, and a running agent "
			    "takes it up by itself",
			    d->config_path);
	}
}
