#ifndef KVKERNELS_H
#define KVKERNELS_H
#endif
