/* The tests of each file. */
#ifndef TESTS_H
#define TESTS_H

void test_stores(void);
void test_models(void);
void test_matching(void);
void test_restoring(void);
void test_writing(void);
void test_sequences(void);
void test_administration(void);
void test_isolation(void);
void test_arguments(void);
void test_structs(void);
void test_damage(void);
void test_threads(void);
void test_processes(void);
void test_fixture(void);

#endif
