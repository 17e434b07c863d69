/* SPDX-License-Identifier: BSD-2-Clause */
/* The number of elements of an array. */
#ifndef KUBELB_ARRAY_H
#define KUBELB_ARRAY_H

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))

#endif
