/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_PYTHON_CODEC_WIRE_H
#define PLS_PYTHON_CODEC_WIRE_H

/* The bytes of a message made of Python values. Numbers are append-only.
 *
 * Plain values are msgpack: nil, bool, int (to 64 bits), float64, str (UTF-8), bin, array (list),
 * map (dict, any hashable key, in insertion order). Everything else is an extension value; the
 * number inside of extension bodies are little-endian. A body of "values" is msgpack again.
 *
 * A call is: uint positional count, uint keyword count, then, when there are keywords, uint byte
 * length of the names and the names as str; then the positional values; then the keyword values.
 *
 * "buffer" below is either a bin value or a REFERENCE of kind bytes. */
enum {
    PLS_EXT_TUPLE = 1,      /* array of values */
    PLS_EXT_SET = 2,        /* array of values */
    PLS_EXT_FROZENSET = 3,  /* array of values */
    PLS_EXT_BIGINT = 4,     /* two's complement, least significant byte first, one byte at least */
    PLS_EXT_COMPLEX = 5,    /* f64 real, f64 imaginary */
    PLS_EXT_BYTEARRAY = 6,  /* the bytes */
    PLS_EXT_MEMORYVIEW = 7, /* u8 format character, u8 dimensions, u64 each; buffer */
    PLS_EXT_SURROGATES = 8, /* str with lone surrogates, in UTF-8 that lets them pass */
    PLS_EXT_RANGE = 9,      /* values start, stop, step */
    PLS_EXT_SLICE = 10,     /* values start, stop, step */
    PLS_EXT_ELLIPSIS = 11,  /* empty */
    PLS_EXT_DATETIME = 12,  /* DATE, TIME's clock; value tzinfo (nil or TIMEZONE) */
    PLS_EXT_DATE = 13,      /* u16 year, u8 month, u8 day */
    PLS_EXT_TIME = 14,      /* u8 hour, minute, second, fold, u32 microsecond; value tzinfo */
    PLS_EXT_TIMEDELTA = 15, /* i32 days, seconds, microseconds */
    PLS_EXT_TIMEZONE = 16,  /* i32 days, seconds, microseconds; value name (str or nil) */
    PLS_EXT_NDARRAY = 17,   /* dtype, u8 order ('C' or 'F'), u8 dimensions, u64 each; buffer */
    PLS_EXT_NUMPY_VALUE = 18, /* dtype; the bytes of one item */
    PLS_EXT_PICKLE = 19,      /* buffer: the pickle; uint count; that many buffers */
    PLS_EXT_REFERENCE = 20,   /* u8 kind, u32 index, u64 length of an out-of-band buffer */
};

/* Kinds of REFERENCE. */
enum {
    PLS_REFERENCE_BYTES = 0,
    PLS_REFERENCE_BYTEARRAY = 1,
    PLS_REFERENCE_STR = 2,        /* UTF-8 */
    PLS_REFERENCE_SURROGATES = 3, /* as PLS_EXT_SURROGATES */
};

#define PLS_REFERENCE_BODY_BYTES 13

/* dtype of NDARRAY and NUMPY_VALUE: u8 index into the table of common native types, or this escape,
 * then u8 length and numpy's own text ("<M8[ns]"). */
#define PLS_DTYPE_TEXT 255
#define PLS_DTYPE_TEXT_BYTES_MAX 32

/* msgpack's first bytes. */
enum {
    PLS_PACK_FIXMAP = 0x80,
    PLS_PACK_FIXARRAY = 0x90,
    PLS_PACK_FIXSTR = 0xa0,
    PLS_PACK_NIL = 0xc0,
    PLS_PACK_UNUSED = 0xc1,
    PLS_PACK_FALSE = 0xc2,
    PLS_PACK_TRUE = 0xc3,
    PLS_PACK_BIN8 = 0xc4,
    PLS_PACK_BIN16 = 0xc5,
    PLS_PACK_BIN32 = 0xc6,
    PLS_PACK_EXT8 = 0xc7,
    PLS_PACK_EXT16 = 0xc8,
    PLS_PACK_EXT32 = 0xc9,
    PLS_PACK_FLOAT32 = 0xca,
    PLS_PACK_FLOAT64 = 0xcb,
    PLS_PACK_UINT8 = 0xcc,
    PLS_PACK_UINT16 = 0xcd,
    PLS_PACK_UINT32 = 0xce,
    PLS_PACK_UINT64 = 0xcf,
    PLS_PACK_INT8 = 0xd0,
    PLS_PACK_INT16 = 0xd1,
    PLS_PACK_INT32 = 0xd2,
    PLS_PACK_INT64 = 0xd3,
    PLS_PACK_FIXEXT1 = 0xd4,
    PLS_PACK_FIXEXT16 = 0xd8,
    PLS_PACK_STR8 = 0xd9,
    PLS_PACK_STR16 = 0xda,
    PLS_PACK_STR32 = 0xdb,
    PLS_PACK_ARRAY16 = 0xdc,
    PLS_PACK_ARRAY32 = 0xdd,
    PLS_PACK_MAP16 = 0xde,
    PLS_PACK_MAP32 = 0xdf,
    PLS_PACK_NEGATIVE = 0xe0,
};

#endif
