# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""SmolLM2-135M in exact integers: conversion, forward pass, tokens, coding."""
