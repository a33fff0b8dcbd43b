// Everything of NanoFormer's engine.
#pragma once

#include "nf/compile.h"
#include "nf/device.h"
#include "nf/dtype.h"
#include "nf/error.h"
#include "nf/executable.h"
#include "nf/file.h"
#include "nf/gguf.h"
#include "nf/gradients.h"
#include "nf/graph.h"
#include "nf/json.h"
#include "nf/named_tensor.h"
#include "nf/ops.h"
#include "nf/optim.h"
#include "nf/safetensors.h"
#include "nf/shape.h"
#include "nf/state.h"
