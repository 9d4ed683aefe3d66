/* The one function of libFuzzer that a program with a main function of its own calls. */
#ifndef REELKV_FUZZER_H
#define REELKV_FUZZER_H

#include <stddef.h>
#include <stdint.h>

/* Runs the fuzzer's own command line; gives the exit status. */
int LLVMFuzzerRunDriver(int *argc, char ***argv, int (*run)(const uint8_t *data, size_t size));

#endif
