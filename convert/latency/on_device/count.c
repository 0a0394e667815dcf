/* QEMU plugin that counts the instructions of the emulated program between the marks that the program sets.
 *
 * The program sets a mark by writing `tag` bytes to the file descriptor -77, which no program has. For every mark
 * the plugin appends a line "tag instructions simd memory" to the file given as log=PATH. The numbers count from
 * the start of the program. `simd` counts vector and floating-point operations, `memory` counts loads and stores.
 * Bits 28..25 of an A64 instruction say which kind it is (Arm ARM, C4.1).
 *
 * The prototypes below are those of version 1 of the plugin interface (QEMU 7.2). Debian does not package its header.
 * Counting is not atomic, so only one thread of the measured program may compute.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
typedef void (*translated_t)(qemu_plugin_id_t, struct qemu_plugin_tb *);
typedef void (*syscall_t)(qemu_plugin_id_t, unsigned, int64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t,
                          uint64_t, uint64_t, uint64_t);
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, translated_t);
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, int, void *, uint64_t);
void qemu_plugin_register_vcpu_syscall_cb(qemu_plugin_id_t, syscall_t);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);

#define EXPORT __attribute__((visibility("default")))
enum { ADD_U64 = 0, WRITE = 64 /* system call of aarch64 Linux */, MARKS = -77 };

EXPORT int qemu_plugin_version = 1;

static uint64_t instructions, simd, memory;
static FILE *log_file;

/* QEMU calls this once for every block of instructions that it translates. The block's counts are computed here,
 * and the additions are compiled into the block, so that they run whenever the block runs. */
static void on_translated(qemu_plugin_id_t id, struct qemu_plugin_tb *block) {
  size_t count = qemu_plugin_tb_n_insns(block), vector = 0, access = 0;
  for (size_t i = 0; i < count; i++) {
    uint32_t code;
    memcpy(&code, qemu_plugin_insn_data(qemu_plugin_tb_get_insn(block, i)), sizeof code);
    vector += (code >> 25 & 7) == 7; /* bits 28..25 are x111 */
    access += (code >> 25 & 5) == 4; /* bits 28..25 are x1x0 */
  }
  qemu_plugin_register_vcpu_tb_exec_inline(block, ADD_U64, &instructions, count);
  qemu_plugin_register_vcpu_tb_exec_inline(block, ADD_U64, &simd, vector);
  qemu_plugin_register_vcpu_tb_exec_inline(block, ADD_U64, &memory, access);
}

/* Logs the counters when the program sets a mark. The size of the write is the mark's tag. */
static void on_syscall(qemu_plugin_id_t id, unsigned cpu, int64_t number, uint64_t file, uint64_t data, uint64_t size,
                       uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8) {
  if (number != WRITE || (int32_t)file != MARKS) return;
  fprintf(log_file, "%" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", size, instructions, simd, memory);
  fflush(log_file);
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const void *info, int argc, char **argv) {
  if (argc != 1 || strncmp(argv[0], "log=", 4) != 0) return 1;
  log_file = fopen(argv[0] + 4, "w");
  if (log_file == NULL) return 1;
  qemu_plugin_register_vcpu_tb_trans_cb(id, on_translated);
  qemu_plugin_register_vcpu_syscall_cb(id, on_syscall);
  return 0;
}
