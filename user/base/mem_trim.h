/* SPDX-License-Identifier: BSD-2-Clause */
/* What a long-lived process keeps resident. */
#ifndef KUBELB_MEM_TRIM_H
#define KUBELB_MEM_TRIM_H

/*
 * Gives back what only the start has needed: free heap, and the code of libraries that
 * ran once (TLS set-up, parsing, libbpf). Code that is needed again comes back from the
 * page cache by itself. Never fails.
 */
void memory_trim(void);

#endif
