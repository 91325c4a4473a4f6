/* isonorm.h: the door for normalization kernels, version 1.
 *
 * A library of kernels is a shared object that exports one function,
 *
 *     const isonorm_library *isonorm_library_v1(void);
 *
 * whose answer lists the kernels it offers. `isonorm certify --plugin libmine.so` loads it in a child
 * process and judges every one of them. Tensors are DLPack tensors; names of operators, attributes and
 * tensors are those that `isonorm explain OPERATOR` prints.
 *
 * Rules of a call, all of them checked:
 *   - pointers are aligned to their element type and to nothing wider;
 *   - a tensor's data begin at (char *)data + byte_offset; strides count elements and are never NULL;
 *     a stride may be 0 (an expanded input) or larger than the row it steps over;
 *   - inputs are read-only, unless an output was given the very same pointer (in-place call);
 *   - every element of every output must be written, and nothing else;
 *   - the answer may depend on nothing but the inputs of this call;
 *   - the floating-point environment (rounding mode, flush-to-zero) is left as it was found;
 *   - a call that the kernel cannot serve returns ISONORM_UNSUPPORTED and says why; that is counted and
 *     reported, never held against it.
 */
#ifndef ISONORM_H
#define ISONORM_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

#define ISONORM_ABI_VERSION 1u

/* --- DLPack (dlpack.h, version 1): the tensor of the array API -------------------------------------- */
#ifndef DLPACK_DLPACK_H_
typedef struct { int32_t device_type; int32_t device_id; } DLDevice; /* device_type 1: CPU, 2: CUDA */
typedef struct { uint8_t code; uint8_t bits; uint16_t lanes; } DLDataType; /* code 2: float, 4: bfloat */
typedef struct {
  void *data;
  DLDevice device;
  int32_t ndim;
  DLDataType dtype;
  int64_t *shape;
  int64_t *strides; /* in elements */
  uint64_t byte_offset;
} DLTensor;
#endif

/* --- A call ---------------------------------------------------------------------------------------- */
typedef enum {
  ISONORM_OK = 0,
  ISONORM_UNSUPPORTED = 1, /* this kernel does not do that; say why in call->message */
  ISONORM_ERROR = 2        /* it should have worked and did not */
} isonorm_status;

enum { ISONORM_REAL = 0, ISONORM_INTEGER = 1, ISONORM_TEXT = 2 };

typedef struct {
  const char *name;
  int32_t kind; /* ISONORM_REAL, _INTEGER or _TEXT: which of the three below holds */
  double real;
  int64_t integer;
  const char *text;
} isonorm_attribute;

typedef struct {
  const char *name; /* "x", "weight", "dy", ...: an optional tensor that is absent is not listed */
  DLTensor tensor;
} isonorm_argument;

typedef struct {
  uint32_t abi_version;
  const char *op;        /* "rms_norm" */
  const char *direction; /* "forward" or "backward" */
  size_t attribute_count;
  const isonorm_attribute *attributes;
  size_t input_count;
  const isonorm_argument *inputs;
  size_t output_count;
  const isonorm_argument *outputs;
  int32_t threads; /* how many threads the kernel may use, at least 1 */
  void *stream;    /* CUDA stream, or NULL */
  char *message;   /* room for a reason, NUL-terminated by the kernel */
  size_t message_capacity;
} isonorm_call;

/* --- What a library offers ------------------------------------------------------------------------- */
typedef struct {
  const char *name; /* unique in the library: letters, digits, '_', '-', '.' */
  const char *op;
  const char *direction;
  /* Data types, separated by commas; "bf16:f32" means bf16 tensors with f32 weights, "f32" means both. */
  const char *dtypes; /* of "f32", "f64", "bf16", "f16" */
  /* Layouts, separated by commas: "contiguous" (dense row-major), "offset" (the same, starting at an odd
   * element), "strided" (any non-negative strides, expanded included), "channels_last", "in_place". */
  const char *layouts;
  /* The precision of its arithmetic: "f32" or "f64"; NULL: f32, and f64 for f64 tensors. */
  const char *precision;
  /* How it adds up n numbers: "any" (or NULL), "blocked:B" (at most B terms in sequence, then the blocks),
   * "tree" (depth log2 n). Declaring a shape means to be held to its tighter bound. */
  const char *reduction;
  /* "approximate" if 1/sqrt comes from an estimate refined to within 3 units in the last place but not
   * exact at powers of four; NULL: sqrt and division as IEEE 754 has them. */
  const char *rsqrt;
  int32_t thread_safe; /* may be called from several threads at once */
  isonorm_status (*run)(const isonorm_call *call);
} isonorm_kernel;

typedef struct {
  uint32_t abi_version; /* ISONORM_ABI_VERSION */
  const char *name;
  const char *version;
  size_t kernel_count;
  const isonorm_kernel *kernels;
} isonorm_library;

/* --- Helpers --------------------------------------------------------------------------------------- */
static inline const DLTensor *isonorm_find(const isonorm_argument *list, size_t count, const char *name) {
  for (size_t i = 0; i < count; i++)
    if (strcmp(list[i].name, name) == 0) return &list[i].tensor;
  return NULL;
}
static inline const DLTensor *isonorm_input(const isonorm_call *call, const char *name) {
  return isonorm_find(call->inputs, call->input_count, name);
}
static inline const DLTensor *isonorm_output(const isonorm_call *call, const char *name) {
  return isonorm_find(call->outputs, call->output_count, name);
}
static inline void *isonorm_data(const DLTensor *tensor) {
  return (char *)tensor->data + tensor->byte_offset;
}
static inline double isonorm_real(const isonorm_call *call, const char *name, double otherwise) {
  for (size_t i = 0; i < call->attribute_count; i++)
    if (strcmp(call->attributes[i].name, name) == 0 && call->attributes[i].kind == ISONORM_REAL)
      return call->attributes[i].real;
  return otherwise;
}
static inline int64_t isonorm_integer(const isonorm_call *call, const char *name, int64_t otherwise) {
  for (size_t i = 0; i < call->attribute_count; i++)
    if (strcmp(call->attributes[i].name, name) == 0 && call->attributes[i].kind == ISONORM_INTEGER)
      return call->attributes[i].integer;
  return otherwise;
}
static inline const char *isonorm_text(const isonorm_call *call, const char *name, const char *otherwise) {
  for (size_t i = 0; i < call->attribute_count; i++)
    if (strcmp(call->attributes[i].name, name) == 0 && call->attributes[i].kind == ISONORM_TEXT)
      return call->attributes[i].text;
  return otherwise;
}
static inline isonorm_status isonorm_decline(const isonorm_call *call, const char *why) {
  if (call->message_capacity > 0) {
    strncpy(call->message, why, call->message_capacity - 1);
    call->message[call->message_capacity - 1] = '\0';
  }
  return ISONORM_UNSUPPORTED;
}

#ifdef __cplusplus
}
#endif
#endif
