/* SPDX-License-Identifier: BSD-2-Clause */
/* Asks every backend once whether it is ready, as a probe does, all of them at the same time. */
#ifndef KUBELB_DOCTOR_DIAL_H
#define KUBELB_DOCTOR_DIAL_H

#include "ctl/doctor.h"
#include "net/tls.h"

struct dialled {
	enum klb_reason reason; /* KLB_REASON_OK: it has answered, with status */
	unsigned int status;
	char detail[TLS_DETAIL_MAX]; /* of another reason */
	__u64 took_ns; /* from the connect to the answer */
	enum tls_fault fault; /* of a certificate that was refused */
	__s64 expires_s; /* of the certificate, in Unix time; 0: none was seen */
	bool dated; /* the answer has a Date */
	__s64 ahead_s; /* by how many seconds that is ahead of this machine's clock */
	bool covers[KLB_MAX_BACKENDS]; /* by index of the frontends: the certificate names it */
};

/*
 * Dials all of `to` as cfg says; ret has an element for each. insecure: without verifying, and
 * without a client certificate, for what a refused certificate hides (the Date). Takes
 * DIAL_SECONDS at the most. Returns 0 or a negative errno with e.
 */
#define DIAL_SECONDS 5
int dial_backends(const struct config_probe *cfg, const struct doctor_endpoints *to,
		  const struct doctor_endpoints *frontends, bool insecure, struct dialled *ret,
		  struct err *e);

#endif
