/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_BASE_ERR_H
#define PLS_BASE_ERR_H

/* The one table of errors: code, number, text. Numbers are append-only, since they cross process
 * boundaries inside replies. errno is mapped to one of these where it appears and goes no further.
 */
#define PLS_ERR_TABLE(X)                                                                           \
    X(PLS_OK, 0, "ok")                                                                             \
    X(PLS_ENOMEM, 1, "out of memory")                                                              \
    X(PLS_EFULL, 2, "full: nothing was changed, try again later")                                  \
    X(PLS_EEMPTY, 3, "empty: nothing is there yet")                                                \
    X(PLS_ECLOSED, 4, "closed by this side or by the peer")                                        \
    X(PLS_EDEAD, 5, "the peer process has died")                                                   \
    X(PLS_EPROTO, 6, "bytes from a peer do not follow the protocol")                               \
    X(PLS_ECORRUPT, 7, "shared memory holds impossible values")                                    \
    X(PLS_EINVAL, 8, "invalid argument")                                                           \
    X(PLS_ETOOBIG, 9, "larger than the limit")                                                     \
    X(PLS_ENOENT, 10, "no such thing")                                                             \
    X(PLS_EEXIST, 11, "exists already")                                                            \
    X(PLS_EBUDGET, 12, "the memory budget is spent")                                               \
    X(PLS_EFDLIMIT, 13, "the file descriptor limit is reached")                                    \
    X(PLS_EPERM, 14, "not permitted")                                                              \
    X(PLS_ESYS, 15, "an operating system call failed")                                             \
    X(PLS_ETIMEDOUT, 16, "the deadline has passed")                                                \
    X(PLS_EFORKED, 17, "used in a forked child")                                                   \
    X(PLS_EVERSION, 18, "another version of the protocol or layout")                               \
    X(PLS_EUNSUPPORTED, 19, "this kernel or machine lacks what is needed")                         \
    X(PLS_ETRUNCATED, 20, "the bytes end too early")                                               \
    X(PLS_EDEPTH, 21, "nested deeper than the limit")

typedef enum pls_err {
#define PLS_ERR_ENUM(name, number, text) name = number,
    PLS_ERR_TABLE(PLS_ERR_ENUM)
#undef PLS_ERR_ENUM
} pls_err;

#define PLS_MUST_USE __attribute__((warn_unused_result))

/* The name of a code ("PLS_EFULL"); "PLS_E?" for a number that is not in the table.
 * Threads: any thread; never blocks. */
const char *pls_err_name(pls_err err);

/* The text of a code, for people. Threads: any thread; never blocks. */
const char *pls_err_text(pls_err err);

/* The code for an errno value.
 * Threads: any thread; never blocks. */
pls_err pls_err_from_errno(int errno_value);

#endif
