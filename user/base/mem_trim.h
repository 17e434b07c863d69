/* SPDX-License-Identifier: BSD-2-Clause */
/* Keeps the resident memory of a long-running process small. */
#ifndef KUBELB_MEM_TRIM_H
#define KUBELB_MEM_TRIM_H

/*
 * Returns memory that only the start needed: the free heap, and the code of libraries that ran once
 * (TLS set-up, parsing, libbpf). The kernel reads code that is needed again from the page cache.
 * Never fails.
 */
void memory_trim(void);

#endif
