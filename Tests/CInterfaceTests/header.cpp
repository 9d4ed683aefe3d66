// The header is C++ too, and what it declares links.
#include <reelkv.h>

#include <cstdio>
#include <cstring>

int main() {
    reelkv_tokens tokens = REELKV_INIT(reelkv_tokens);
    reelkv_settings settings = REELKV_INIT(reelkv_settings);
    reelkv_store *store = nullptr;
    if (tokens.struct_size != sizeof tokens || tokens.count != 0 || settings.policy != nullptr) return 1;
    if (reelkv_abi_version() < REELKV_ABI_VERSION) return 2;
    if (reelkv_store_open("/nowhere", REELKV_OPEN_READ_ONLY, &store) != REELKV_NOT_A_STORE || store != nullptr) return 3;
    if (std::strstr(reelkv_last_error(), "/nowhere") == nullptr) return 4;
    std::printf("ok      the header in C++\n");
    return 0;
}
