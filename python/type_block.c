/* SPDX-License-Identifier: Apache-2.0 */
/* A received large payload as Python sees it: a read-only buffer over shared memory. It goes back
 * to its owner when the last Python object that looks into it dies: in dealloc, not when its
 * exports end, because numpy keeps only a reference to what it was made from. */
#include "python/core_parts.h"

typedef struct core_block {
    PyObject_HEAD pulsing_block *block;
} core_block;

PyObject *core_block_new(core_state *state, pulsing_block *block)
{
    core_block *self = PyObject_New(core_block, state->block_type);
    if (self == NULL) {
        return NULL;
    }
    self->block = pulsing_block_keep(block);
    return (PyObject *)self;
}

static void block_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    pulsing_block_release(((core_block *)self)->block);
    PyObject_Free(self);
    Py_DECREF(type);
}

static int block_getbuffer(PyObject *self, Py_buffer *view, int flags)
{
    uint64_t len = 0;
    const uint8_t *bytes = pulsing_block_bytes(((core_block *)self)->block, &len);
    return PyBuffer_FillInfo(view, self, (void *)(uintptr_t)bytes, (Py_ssize_t)len, 1, flags);
}

static Py_ssize_t block_length(PyObject *self)
{
    uint64_t len = 0;
    pulsing_block_bytes(((core_block *)self)->block, &len);
    return (Py_ssize_t)len;
}

static PyType_Slot block_slots[] = {
    {Py_tp_dealloc, block_dealloc},
    {Py_bf_getbuffer, block_getbuffer},
    {Py_sq_length, block_length},
    {Py_tp_doc, "Shared memory that a message brought; read-only."},
    {0, NULL},
};

PyType_Spec core_block_spec = {
    .name = "pulsing._core.Block",
    .basicsize = sizeof(core_block),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = block_slots,
};
