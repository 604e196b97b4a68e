/* SPDX-License-Identifier: Apache-2.0 */
/* Names and texts of the error table, and the only mapping from errno. */
#include "base/err.h"

#include <errno.h>

const char *pls_err_name(pls_err err)
{
    switch (err) {
#define PLS_ERR_NAME(name, number, text)                                                           \
    case name:                                                                                     \
        return #name;
        PLS_ERR_TABLE(PLS_ERR_NAME)
#undef PLS_ERR_NAME
    }
    return "PLS_E?";
}

const char *pls_err_text(pls_err err)
{
    switch (err) {
#define PLS_ERR_TEXT(name, number, text)                                                           \
    case name:                                                                                     \
        return text;
        PLS_ERR_TABLE(PLS_ERR_TEXT)
#undef PLS_ERR_TEXT
    }
    return "unknown error";
}

pls_err pls_err_from_errno(int errno_value)
{
    switch (errno_value) {
    case 0:
        return PLS_OK;
    case ENOMEM:
    case ENOSPC:
        return PLS_ENOMEM;
    case EAGAIN:
        return PLS_EFULL;
    case EPIPE:
    case ECONNRESET:
    case ENOTCONN:
        return PLS_ECLOSED;
    case EMFILE:
    case ENFILE:
        return PLS_EFDLIMIT;
    case EPERM:
    case EACCES:
        return PLS_EPERM;
    case ENOENT:
    case ECONNREFUSED:
        return PLS_ENOENT;
    case EEXIST:
    case EADDRINUSE:
        return PLS_EEXIST;
    case EINVAL:
        return PLS_EINVAL;
    case ESRCH:
        return PLS_EDEAD;
    case ETIMEDOUT:
        return PLS_ETIMEDOUT;
    case ENOSYS:
    case EOPNOTSUPP:
        return PLS_EUNSUPPORTED;
    default:
        return PLS_ESYS;
    }
}
