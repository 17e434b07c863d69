/* SPDX-License-Identifier: BSD-2-Clause */
/* Counts the elements of an array. */
#ifndef KUBELB_ARRAY_H
#define KUBELB_ARRAY_H

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))

#endif
