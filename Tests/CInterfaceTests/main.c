#include "support.h"
#include "tests.h"

int main(void) {
    test_stores();
    test_models();
    test_matching();
    test_restoring();
    test_writing();
    test_sequences();
    test_administration();
    test_isolation();
    test_arguments();
    test_structs();
    test_damage();
    test_threads();
    test_processes();
    test_fixture();
    delete_paths();
    return end_tests();
}
