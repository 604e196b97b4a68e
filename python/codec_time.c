/* SPDX-License-Identifier: Apache-2.0 */
/* datetime's types, both directions: date, datetime, time, timedelta, and datetime.timezone as
 * tzinfo. Other tzinfo classes are the user's or zoneinfo's and go through pickle, inside of the
 * value. The module's C interface is fetched once it is needed and kept in the codec: the header's
 * own pointer would be a global. */

#include "python/codec_internal.h"

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-variable"
#pragma GCC diagnostic ignored "-Wunused-function"
#include <datetime.h>
#pragma GCC diagnostic pop

#define DATE_BYTES 4
#define CLOCK_BYTES 8
#define DELTA_BYTES 12

static int time_import(pls_codec *codec)
{
    if (codec->datetime == NULL) {
        codec->datetime = PyCapsule_Import(PyDateTime_CAPSULE_NAME, 0);
    }
    return codec->datetime != NULL ? 0 : -1;
}

/* For an encode: a date can only exist once the module is there. */
static bool time_present(pls_codec *codec)
{
    if (codec->datetime != NULL) {
        return true;
    }
    PyObject *type = pls_module_loaded("datetime", "datetime");
    Py_XDECREF(type);
    if (type == NULL || time_import(codec) != 0) {
        PyErr_Clear();
        return false;
    }
    return true;
}

static void store_date(pls_sink *sink, PyObject *object)
{
    pls_store_le16(sink, (uint16_t)PyDateTime_GET_YEAR(object));
    pls_store_u8(sink, (uint8_t)PyDateTime_GET_MONTH(object));
    pls_store_u8(sink, (uint8_t)PyDateTime_GET_DAY(object));
}

static void store_delta(pls_sink *sink, PyObject *object)
{
    pls_store_le32(sink, (uint32_t)PyDateTime_DELTA_GET_DAYS(object));
    pls_store_le32(sink, (uint32_t)PyDateTime_DELTA_GET_SECONDS(object));
    pls_store_le32(sink, (uint32_t)PyDateTime_DELTA_GET_MICROSECONDS(object));
}

static int put_date(PyObject *object, pls_sink *sink)
{
    int rc = pls_put_ext(sink, PLS_EXT_DATE, DATE_BYTES);
    if (rc == 0 && (rc = pls_sink_room(sink, DATE_BYTES)) == 0) {
        store_date(sink, object);
    }
    return rc;
}

static int put_delta(PyObject *object, pls_sink *sink)
{
    int rc = pls_put_ext(sink, PLS_EXT_TIMEDELTA, DELTA_BYTES);
    if (rc == 0 && (rc = pls_sink_room(sink, DELTA_BYTES)) == 0) {
        store_delta(sink, object);
    }
    return rc;
}

static int put_datetime(pls_codec *codec, PyObject *object, pls_sink *sink)
{
    size_t mark;
    int rc = pls_ext_begin(sink, PLS_EXT_DATETIME, &mark);
    if (rc != 0 || (rc = pls_sink_room(sink, DATE_BYTES + CLOCK_BYTES)) != 0) {
        return rc;
    }
    store_date(sink, object);
    pls_store_u8(sink, (uint8_t)PyDateTime_DATE_GET_HOUR(object));
    pls_store_u8(sink, (uint8_t)PyDateTime_DATE_GET_MINUTE(object));
    pls_store_u8(sink, (uint8_t)PyDateTime_DATE_GET_SECOND(object));
    pls_store_u8(sink, (uint8_t)PyDateTime_DATE_GET_FOLD(object));
    pls_store_le32(sink, (uint32_t)PyDateTime_DATE_GET_MICROSECOND(object));
    rc = pls_put_value(codec, PyDateTime_DATE_GET_TZINFO(object), sink);
    return rc != 0 ? rc : pls_ext_end(sink, mark);
}

static int put_time(pls_codec *codec, PyObject *object, pls_sink *sink)
{
    size_t mark;
    int rc = pls_ext_begin(sink, PLS_EXT_TIME, &mark);
    if (rc != 0 || (rc = pls_sink_room(sink, CLOCK_BYTES)) != 0) {
        return rc;
    }
    pls_store_u8(sink, (uint8_t)PyDateTime_TIME_GET_HOUR(object));
    pls_store_u8(sink, (uint8_t)PyDateTime_TIME_GET_MINUTE(object));
    pls_store_u8(sink, (uint8_t)PyDateTime_TIME_GET_SECOND(object));
    pls_store_u8(sink, (uint8_t)PyDateTime_TIME_GET_FOLD(object));
    pls_store_le32(sink, (uint32_t)PyDateTime_TIME_GET_MICROSECOND(object));
    rc = pls_put_value(codec, PyDateTime_TIME_GET_TZINFO(object), sink);
    return rc != 0 ? rc : pls_ext_end(sink, mark);
}

/* datetime.timezone says what it was made of through __getinitargs__(): offset, or offset and name.
 */
static int put_timezone(pls_codec *codec, PyObject *object, pls_sink *sink)
{
    PyObject *parts = PyObject_CallMethod(object, "__getinitargs__", NULL);
    if (parts == NULL) {
        return -1;
    }
    PyDateTime_CAPI *api = codec->datetime;
    Py_ssize_t count = PyTuple_Check(parts) ? PyTuple_GET_SIZE(parts) : 0;
    int rc = PLS_PUT_FOREIGN;
    size_t mark;
    if (count >= 1 && Py_TYPE(PyTuple_GET_ITEM(parts, 0)) == api->DeltaType) {
        rc = pls_ext_begin(sink, PLS_EXT_TIMEZONE, &mark);
        if (rc == 0 && (rc = pls_sink_room(sink, DELTA_BYTES)) == 0) {
            store_delta(sink, PyTuple_GET_ITEM(parts, 0));
            rc = pls_put_value(codec, count > 1 ? PyTuple_GET_ITEM(parts, 1) : Py_None, sink);
        }
        rc = rc != 0 ? rc : pls_ext_end(sink, mark);
    }
    Py_DECREF(parts);
    return rc;
}

int pls_put_time(pls_codec *codec, PyObject *object, pls_sink *sink)
{
    if (!time_present(codec)) {
        return PLS_PUT_FOREIGN;
    }
    const PyDateTime_CAPI *api = codec->datetime;
    PyTypeObject *type = Py_TYPE(object);
    if (type == api->DateTimeType) {
        return put_datetime(codec, object, sink);
    }
    if (type == api->DateType) {
        return put_date(object, sink);
    }
    if (type == api->DeltaType) {
        return put_delta(object, sink);
    }
    if (type == api->TimeType) {
        return put_time(codec, object, sink);
    }
    if (type == Py_TYPE(api->TimeZone_UTC)) {
        return put_timezone(codec, object, sink);
    }
    return PLS_PUT_FOREIGN;
}

static PyObject *delta_make(const PyDateTime_CAPI *api, const uint8_t *bytes)
{
    return api->Delta_FromDelta((int)pls_load_le32(bytes), (int)pls_load_le32(bytes + 4),
                                (int)pls_load_le32(bytes + 8), 1, api->DeltaType);
}

static PyObject *take_timezone(pls_codec *codec, pls_source *source)
{
    const PyDateTime_CAPI *api = codec->datetime;
    const uint8_t *bytes = pls_source_take(source, DELTA_BYTES);
    PyObject *offset = bytes != NULL ? delta_make(api, bytes) : NULL;
    PyObject *name = offset != NULL ? pls_take_value(codec, source) : NULL;
    PyObject *zone = NULL;
    if (name != NULL && name != Py_None && !PyUnicode_CheckExact(name)) {
        pls_codec_fail(codec, "a time zone's name is not a string");
    } else if (name != NULL) {
        zone = api->TimeZone_FromTimeZone(offset, name == Py_None ? NULL : name);
    }
    Py_XDECREF(offset);
    Py_XDECREF(name);
    return zone;
}

/* None or a tzinfo; the constructors check the type. */
static PyObject *take_clock(pls_codec *codec, pls_source *source, const uint8_t *date)
{
    const PyDateTime_CAPI *api = codec->datetime;
    const uint8_t *clock = pls_source_take(source, CLOCK_BYTES);
    PyObject *zone = clock != NULL ? pls_take_value(codec, source) : NULL;
    if (zone == NULL) {
        return NULL;
    }
    int hour = pls_load_u8(clock);
    int minute = pls_load_u8(clock + 1);
    int second = pls_load_u8(clock + 2);
    int fold = pls_load_u8(clock + 3);
    int microsecond = (int)pls_load_le32(clock + 4);
    PyObject *value;
    if (date != NULL) {
        value = api->DateTime_FromDateAndTimeAndFold(pls_load_le16(date), pls_load_u8(date + 2),
                                                     pls_load_u8(date + 3), hour, minute, second,
                                                     microsecond, zone, fold, api->DateTimeType);
    } else {
        value =
            api->Time_FromTimeAndFold(hour, minute, second, microsecond, zone, fold, api->TimeType);
    }
    Py_DECREF(zone);
    return value;
}

static PyObject *take_date(pls_codec *codec, pls_source *source, int code)
{
    const PyDateTime_CAPI *api = codec->datetime;
    const uint8_t *date = pls_source_take(source, DATE_BYTES);
    if (date == NULL) {
        return NULL;
    }
    if (code == PLS_EXT_DATETIME) {
        return take_clock(codec, source, date);
    }
    return api->Date_FromDate(pls_load_le16(date), pls_load_u8(date + 2), pls_load_u8(date + 3),
                              api->DateType);
}

static PyObject *take_body(pls_codec *codec, pls_source *source, int code)
{
    switch (code) {
    case PLS_EXT_DATE:
    case PLS_EXT_DATETIME:
        return take_date(codec, source, code);
    case PLS_EXT_TIME:
        return take_clock(codec, source, NULL);
    case PLS_EXT_TIMEDELTA: {
        const uint8_t *bytes = pls_source_take(source, DELTA_BYTES);
        return bytes != NULL ? delta_make(codec->datetime, bytes) : NULL;
    }
    default:
        return take_timezone(codec, source);
    }
}

PyObject *pls_take_time(pls_codec *codec, pls_source *source, int code)
{
    if (time_import(codec) != 0) {
        return NULL;
    }
    PyObject *value = take_body(codec, source, code);
    bool told = codec->error != NULL && value == NULL && PyErr_ExceptionMatches(codec->error);
    if (value == NULL && !told &&
        (PyErr_ExceptionMatches(PyExc_ValueError) || PyErr_ExceptionMatches(PyExc_TypeError) ||
         PyErr_ExceptionMatches(PyExc_OverflowError))) {
        PyErr_Clear();
        pls_codec_fail(codec, "a date or time is out of its range");
    }
    return value;
}
